"""Training on the graph that inference runs. Inference imports nothing of it.

ops.py         what the backward pass needs, as ordinary ops
gradients.py   a forward graph -> its trainable form, and the gradients of its weights
losses.py      vectors and targets -> loss and its gradient
adamw.py       the optimiser and the schedule of its learning rate
program.py     a training step in numpy
gpu.py         the same on a device
checks.py      every kernel of training against numpy
settings.py    what a run is, and what is refused
data.py        files -> tokenised examples, and the order in which they come
teacher.py     the vectors of another model as targets
scratch.py     a GPT-2 that has learnt nothing yet
checkpoint.py  weights -> a plain model folder with the state of training, atomically
card.py        its README
start.py       a run, new or resumed, made ready
loop.py        steps, validation, checkpoints, interruption, NaN and collapse
curve.py       the metrics as a picture
"""
