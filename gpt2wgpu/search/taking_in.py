"""Takes vectors that another program computed with the same model into an index."""

import hashlib
from contextlib import closing
from itertools import groupby
from pathlib import Path

import numpy as np

from ..encoder import Encoder
from ..errors import UserError, show
from ..graph.tensor import Array
from ..vectors.top_k import corpus_blocks, normalize_rows
from .exchange import Entries, read_entries_file
from .passages import Passage
from .reader import Index, open_index
from .store import Store, lock_index, read_index_state, remove_other_generations
from .update import PASSAGES_TOGETHER, IndexUpdate, NewContent, PassageWindow, UpdateReport, index_fingerprint

COMPARED = 3  # texts whose vectors are computed again
LEAST_COSINE = 0.99  # between a given vector and ours; other precisions and quantised ones come closer


def import_index(encoder: Encoder, folder: Path, path: Path, report: UpdateReport) -> Index:
    """Add the passages of a file (see exchange.py) to the index in `folder`, which is made if there is none. Importing the same
    file again adds nothing. Some vectors are computed again, to see that they are this model's.

    Raises UserError for vectors of another model, or a file that cannot be read; OSError.
    """
    entries = read_entries_file(path)
    with lock_index(folder, report.say):
        state = index_fingerprint(encoder, read_index_state(folder))
        check_model_vectors(encoder, entries, path)
        vectors = normalize_rows(entries.vectors)
        remove_other_generations(folder, state)
        with closing(Store(folder, state)) as store:
            update = IndexUpdate(encoder, store, report, None)
            try:
                first = 0
                for file, facts in groupby(entries.facts, key=lambda fact: str(fact["path"])):
                    passages = [Passage(fact["text"], fact["line"], fact["last_line"]) for fact in facts]
                    add_content(update, file, passages, vectors[first : first + len(passages)])
                    first += len(passages)
            finally:  # Ctrl-C too
                update.commit()
        return open_index(folder)


def add_content(update: IndexUpdate, file: str, passages: list[Passage], vectors: Array) -> None:
    """The passages of one file, which counts as not read: if it is searched itself, it replaces them."""
    digest = hashlib.sha256(file.encode("utf-8", "surrogatepass"))
    for passage in passages:
        digest.update(f"{passage.first} {passage.last} {passage.text}\0".encode("utf-8", "surrogatepass"))
    content = NewContent(f"{digest.hexdigest()} import", [])
    if content.key not in update.catalogue.contents:
        for rows in corpus_blocks(len(passages), PASSAGES_TOGETHER):
            update.write_window(PassageWindow([(content, passage) for passage in passages[rows]]), vectors[rows])
        update.end_content(content)
    if update.catalogue.files.get(file, None) is None or update.catalogue.files[file].key != content.key:
        update.note(path=file, key=content.key, stat=[])


def check_model_vectors(encoder: Encoder, entries: Entries, path: Path) -> None:
    """Raises UserError unless the vectors seem to be the model's, for documents."""
    if entries.vectors.shape[1] != encoder.dimensions:
        found = f"vectors of {entries.vectors.shape[1]} dimensions, and this model has {encoder.dimensions}"
        raise UserError(f"{show(path)}: holds {found}: use the model that made them")
    for i in np.linspace(0, len(entries.facts) - 1, COMPARED).astype(int).tolist():
        own = encoder.encode_document(entries.facts[i]["text"], normalize_embeddings=True)
        cosine = float(normalize_rows(entries.vectors[i : i + 1].astype(np.float64))[0] @ own)
        if cosine < LEAST_COSINE:
            found = f"entry {i} has another vector than this model gives (cosine {cosine:.2f})"
            raise UserError(f"{show(path)}: {found}: use the model and the prompt that made it")
