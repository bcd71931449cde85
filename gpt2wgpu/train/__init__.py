"""Training on the graph that inference runs. Inference imports nothing of it.

ops.py         what the backward pass needs, as ordinary ops
gradients.py   a forward graph -> its trainable form, and the gradients of its weights
losses.py      vectors and targets -> loss and its gradient
adamw.py       the optimiser and the schedule of its learning rate
program.py     a training step in numpy
gpu.py         the same on a device
"""
