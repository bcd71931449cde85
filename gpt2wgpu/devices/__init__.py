"""Chooses where a graph is computed, and tests that device before it is trusted.

choose.py      a device's name and a dtype -> an opened device, or numpy
selftest.py    one op on a device against numpy; the cases of `doctor`
graph_check.py the kernels of a graph against numpy, before it is computed
f16_check.py   conversions of float16
matrix_units.py  the matrix units of a device, tried in a process of their own
loop_limit.py  the longest text on software drivers that end loops early
"""
