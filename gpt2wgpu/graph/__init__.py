"""What is computed: tensors and ops, packed batches, memory, and the runner in numpy, which defines what is right."""
