"""What is done with vectors: measures, all pairs, quantisation, other containers."""
