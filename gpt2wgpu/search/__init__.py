"""Search in files: by meaning, by words, or both.

walk.py      the files of folders, without what .gitignore names
passages.py  a file -> passages of a few paragraphs, with their lines
words.py     a text -> the words that it can be found by
bm25.py      how well passages match the words of a query
store.py     an index on disk: append-only files and a state that counts what is in them
reader.py    an index as arrays, as one process sees it
update.py    brings an index up to date with files
query.py     a question -> the best passages
exchange.py  indexes in the formats of other programs; taking_in.py: their vectors into an index
"""
