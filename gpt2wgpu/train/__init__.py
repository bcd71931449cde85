"""Training, on the graph that inference runs. Inference imports nothing from here.

ops.py          the ops that the backward pass needs, as ordinary ops of a graph
gradients.py    a forward graph -> its trainable form, and the gradients of its weights
losses.py       vectors and targets -> loss and its gradient
adamw.py        the optimiser, and the schedule of the learning rate
average.py      the moving average of the weights
program.py      what a program for training offers; in numpy
gpu.py          the same on a device
selftest.py     every kernel of training against numpy
loop_limit.py   the longest loops of these kernels on software drivers
settings.py     the settings of a run, and which are refused
data.py         files -> tokenised examples, and their order
teacher.py      vectors of another model as targets
stored.py       such vectors in files, mapped to memory
vocabulary.py   tokenizers trained on texts
from_scratch.py a GPT-2 with random weights
checkpoint.py   weights and the state of training -> a model folder, atomically
card.py         the README.md of that folder
run_folder.py   the folder of a run, for one process at a time
start.py        open a run, new or resumed
loop.py         steps, validation, checkpoints, interruption, NaN and collapse
"""
