"""Work on finished vectors.

measures.py  how alike two vectors are, for the command line and the package's users
pairwise.py  similarities of all pairs of rows, or row by row, under sentence-transformers' names
top_k.py     the k best rows of a corpus for each query; device_corpus.py: of one that stays on a device
retrieval.py mining.py    search, pairs and groups, under sentence-transformers' names
coarse.py    rows in int8 with a bound on what they lost, for a first scan
quantize.py  float32 -> int8, uint8, binary, ubinary
postprocess.py  centre, standardise, whiten, remove the top directions; fitted on unlabelled texts
convert.py   from and to lists, arrays and tensors of torch
"""
