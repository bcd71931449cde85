"""Work on finished vectors: measures, all pairs, quantisation, other containers."""
