"""Texts from files, vectors into files: row by row, so that memory does not grow with the file.

Output is atomic: an existing file is replaced only by a complete one.

source.py    a file and its packing; the files of a folder
lines.py     lines of text, checked to be UTF-8
columns.py   which column holds the texts
texts.py     texts from every format; arrow.py: from and to Parquet and Arrow
pairs.py     labelled pairs of sentences
windows.py   texts in windows that bound memory
rows.py      what writers get; vectors.py and matrices.py: the writers
output.py    atomic output files
"""

from .columns import USUAL_COLUMNS
from .matrices import MATRIX_FORMATS, write_matrix_json
from .output import keep_permissions, name_output, open_file, open_output, resolve_output, suffix_of, sync_to_disk
from .rows import OutputFacts, Rows
from .source import Source, import_arrow
from .texts import JSON_LINES, TABLES, Texts, json_values, read_texts, table_rows
from .vectors import ARROW_FORMATS, HOLD_FACTS, VECTOR_FORMATS, WITHOUT_TEXTS, npy_header, write_json, write_jsonl, write_npy

__all__ = [
    "ARROW_FORMATS",
    "HOLD_FACTS",
    "JSON_LINES",
    "MATRIX_FORMATS",
    "TABLES",
    "USUAL_COLUMNS",
    "VECTOR_FORMATS",
    "WITHOUT_TEXTS",
    "OutputFacts",
    "Rows",
    "Source",
    "Texts",
    "import_arrow",
    "json_values",
    "keep_permissions",
    "name_output",
    "npy_header",
    "open_file",
    "open_output",
    "read_texts",
    "resolve_output",
    "suffix_of",
    "sync_to_disk",
    "table_rows",
    "write_json",
    "write_jsonl",
    "write_matrix_json",
    "write_npy",
]
