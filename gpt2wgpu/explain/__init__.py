"""How a text becomes a vector, and why two texts are alike, with every number.

explain_texts.py  one text or two -> an Explanation
trace.py       every value of a graph in float64; the residual stream in it; the maps of attention
held.py        the steps of a model as linear maps, and what is held for that
shares.py      the cosine as exact sums over tokens, dimensions and parts of the model
dispatches.py  the kernels that run, with their grids, WGSL and times
result.py      what `Encoder.explain` returns
page.py        an Explanation -> one HTML file, from page.html, page.css and the scripts beside it
terminal.py    an Explanation -> lines for a terminal
"""
