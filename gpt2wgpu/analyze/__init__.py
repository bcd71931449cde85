"""What vectors say about many texts.

table.py       texts, vectors and columns of a file or an index; records.py: rows of columns into files
neighbors.py   the exact nearest rows of every row
duplicates.py  texts that say the same
clusters.py    groups of one theme; topics.py: their words and central texts
classify.py    classes from examples; classifier_file.py: a classifier in a folder
layout.py      places on a map, by t-SNE or principal components; forces.py: what pushes and pulls
               the points; device_forces.py: on a GPU
density.py     clusters that the eye sees on a map
maps.py        all of a map; map_page.py: as a page (page/); map_files.py: as a picture and points
"""
