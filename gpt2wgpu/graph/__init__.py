"""What is computed, and the numpy that defines what is right.

tensor.py     tensors and ops: the graph, and how an op's signature is read
ops/          every op of inference: its signature, its maths in numpy, its dispatch grid
int8.py       a graph -> the same graph in int8; the format of the weights is in ops/quantized.py
packing.py    texts -> packed batches
memory.py     how much memory a graph needs, and how much there is
program.py    what a compiled graph offers, whatever computes it
reference.py  the numpy runner
cores.py      the threads on which numpy computes, and BLAS with one thread
fork_lock.py  a lock that survives a fork (gpu/device.py refuses a device after one)
"""
