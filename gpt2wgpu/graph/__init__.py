"""What is computed, and numpy to compute it: tensors and ops, packing, memory, the numpy runner."""
