"""Chooses where a graph is computed, and tests that device before it is trusted.

choose.py      a device's name and a dtype -> an opened device, or numpy
selftest.py    kernels against numpy, at start-up and for `doctor`
loop_limit.py  the longest text on software drivers that end loops early
"""
