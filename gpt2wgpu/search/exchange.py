"""Indexes for other programs, and theirs for us. Each format needs its own package, imported only for such a file.

    .parquet         a table with a column `vector` (fixed-size list of float32), as LanceDB and DuckDB read it; pyarrow
    .sqlite .db      the embeddings database of the `llm` tool, one collection; llm
    .usearch         HNSW by cosine; usearch
    .faiss           exact, by inner product of vectors of length 1; faiss-cpu

The last two hold no texts: these are next to them, in FILE.jsonl, line i for key i.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, between, show, utf8_name
from ..graph.tensor import Array
from .reader import Index, check_index

FACTS = ("path", "line", "last_line", "text")
TEXT_COLUMNS, VECTOR_COLUMNS = ("text", "content", "sentence"), ("vector", "embedding")
MOST_LINES = (1 << 32) - 1
PACKAGES = {"pyarrow": "pyarrow", "sqlite_utils": "llm", "llm": "llm", "usearch.index": "usearch", "faiss": "faiss-cpu"}


@dataclass
class Entries:
    """Passages outside an index: what FACTS names of each, and vectors float32 (n, C)."""

    facts: list[dict[str, Any]]
    vectors: Array


def load_package(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{show(path)}: {path.suffix} needs {PACKAGES[name]}: pip install {PACKAGES[name]}") from None


def find_format(path: Path, formats: Mapping[str, Any]) -> Any:
    if path.suffix.lower() not in formats:
        raise UserError(f"{show(path)}: the name must end in one of {' '.join(formats)}")
    return formats[path.suffix.lower()]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to; if the block succeeds, the file there replaces `path`."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


def index_entries(index: Index) -> Entries:
    """The passages of an index that belong to files."""
    rows = np.flatnonzero(index.allowed())
    facts = []
    for row in rows.tolist():
        first, last = int(index.rows["first"][row]), int(index.rows["last"][row])
        facts.append(dict(zip(FACTS, (utf8_name(index.files_of(row)[0]), first, last, index.text(row)), strict=True)))
    return Entries(facts, np.ascontiguousarray(index.vectors[rows]))


def export_index(index: Index, path: Path, model: str) -> int:
    """Write an index in the format of the file's name. model: its name, for formats that hold it. Returns how many passages.

    Raises UserError for another format, a missing package, an index that is empty or damaged; OSError.
    """
    write = find_format(path, WRITERS)
    if not path.parent.is_dir():
        raise UserError(f"{show(path)}: there is no folder {show(path.parent)}")
    check_index(index)
    entries = index_entries(index)
    if not entries.facts:
        raise UserError(f"{show(index.folder)}: holds no passages")
    write(path, entries, model)
    return len(entries.facts)


def write_vector_table(path: Path, entries: Entries, model: str) -> None:
    pyarrow = load_package("pyarrow", path)
    from pyarrow import parquet

    n, width = entries.vectors.shape
    columns = {"id": pyarrow.array(np.arange(n))}
    columns |= {name: pyarrow.array([fact[name] for fact in entries.facts]) for name in FACTS}
    columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(entries.vectors.reshape(-1)), width)
    with whole_file(path) as part:
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata({"gpt2wgpu": json.dumps({"model": model})}), part)


def write_facts(path: Path, entries: Entries) -> None:
    with whole_file(Path(f"{path}.jsonl")) as part:
        part.write_text("".join(f"{json.dumps({'id': i, **fact})}\n" for i, fact in enumerate(entries.facts)), "utf-8")


def write_usearch(path: Path, entries: Entries, model: str) -> None:
    usearch = load_package("usearch.index", path)
    made = usearch.Index(ndim=entries.vectors.shape[1], metric="cos", dtype="f32")
    made.add(np.arange(len(entries.vectors)), entries.vectors)
    write_facts(path, entries)
    with whole_file(path) as part:
        made.save(str(part))


def write_faiss(path: Path, entries: Entries, model: str) -> None:
    faiss = load_package("faiss", path)
    made = faiss.IndexFlatIP(entries.vectors.shape[1])
    made.add(entries.vectors)
    write_facts(path, entries)
    with whole_file(path) as part:
        faiss.write_index(made, str(part))


def write_llm(path: Path, entries: Entries, model: str) -> None:
    """One collection, named after the file. llm asks the model of its plugin `gpt2wgpu` for the vectors of queries."""
    utils, llm = load_package("sqlite_utils", path), load_package("llm", path)
    with whole_file(path) as part:
        database = utils.Database(part)
        llm.embeddings.embeddings_migrations.apply(database)
        number = database["collections"].insert({"name": path.stem, "model": model}).last_pk
        database["embeddings"].insert_all(
            {
                "collection_id": number,
                "id": f"{fact['path']}:{fact['line']}:{i}",
                "embedding": vector.astype("<f4").tobytes(),
                "content": fact["text"],
                "content_blob": None,
                "content_hash": hashlib.md5(fact["text"].encode(), usedforsecurity=False).digest(),
                "metadata": json.dumps({name: fact[name] for name in FACTS[:3]}),
                "updated": int(time.time()),
            }
            for i, (fact, vector) in enumerate(zip(entries.facts, entries.vectors, strict=True))
        )
        database.close()


def read_entries_file(path: Path) -> Entries:
    """The passages of a file of another program. Raises UserError if it holds no texts or no vectors; OSError."""
    read = find_format(path, ENTRY_READERS)
    if not path.is_file():
        raise UserError(f"{show(path)}: no such file")
    try:
        found: Entries = read(path)
    except (UserError, OSError):
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:  # what the packages raise for damaged files
        why = show(str(error).partition("\n")[0], 200)
        raise UserError(f"{show(path)}: cannot be read as {path.suffix}: {why}") from None
    if not found.facts:
        raise UserError(f"{show(path)}: holds no vectors")
    for i, fact in enumerate(found.facts):
        if not isinstance(fact, dict) or not isinstance(fact.get("text"), str):
            raise UserError(f"{show(path)}: entry {i} has no text, which a passage needs: store it with the vectors")
        fact["path"] = str(fact.get("path") or path.resolve())
        for name, otherwise in (("line", i + 1), ("last_line", fact.get("line") or i + 1)):
            value = fact.get(name) or otherwise
            value = int(value) if isinstance(value, float) and value.is_integer() else value  # as pandas writes them
            fact[name] = between(f"{show(path)}: {name} of entry {i}", value, 1, MOST_LINES)
    return found


def read_vector_table(path: Path) -> Entries:
    load_package("pyarrow", path)
    from pyarrow import parquet

    table = parquet.read_table(path)
    text, vector = (
        next((name for name in names if name in table.column_names), None) for names in (TEXT_COLUMNS, VECTOR_COLUMNS)
    )
    if text is None or vector is None:
        wanted = f"a column {' or '.join(TEXT_COLUMNS)} and a column {' or '.join(VECTOR_COLUMNS)}"
        raise UserError(f"{show(path)}: expected {wanted}, found {', '.join(table.column_names)}")
    columns = {name: table[name].to_pylist() for name in FACTS[:3] if name in table.column_names}
    columns["text"] = table[text].to_pylist()
    facts = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Entries(facts, stack_vectors(path, table[vector].to_pylist()))


def read_facts(path: Path) -> list[dict[str, Any]]:
    beside = Path(f"{path}.jsonl")
    if not beside.is_file():
        raise UserError(f"{show(path)}: {path.suffix} holds no texts: put them into {show(beside)}, line i for key i")
    try:
        return [json.loads(line) for line in beside.read_bytes().splitlines()]
    except ValueError as error:
        raise UserError(f"{show(beside)}: is not JSON lines: {error}") from None


def read_usearch(path: Path) -> Entries:
    usearch = load_package("usearch.index", path)
    made, facts = usearch.Index.restore(str(path)), read_facts(path)
    if made is None or sorted(np.asarray(made.keys).tolist()) != [*range(len(facts))]:
        raise UserError(f"{show(path)}: its keys are not the {len(facts):,} lines of {path.name}.jsonl")
    return Entries(facts, stack_vectors(path, made.get(np.arange(len(facts)))))


def read_faiss(path: Path) -> Entries:
    faiss = load_package("faiss", path)
    made, facts = faiss.read_index(str(path)), read_facts(path)
    if made.ntotal != len(facts):
        raise UserError(f"{show(path)}: holds {made.ntotal:,} vectors, and {path.name}.jsonl {len(facts):,} lines")
    return Entries(facts, stack_vectors(path, made.reconstruct_n(0, made.ntotal)))


def read_llm(path: Path) -> Entries:
    import sqlite3

    database = sqlite3.connect(path)
    try:
        names = [name for (name,) in database.execute("select name from collections order by id")]
        if len(names) != 1:
            raise UserError(f"{show(path)}: expected one collection, found {', '.join(names) or 'none'}")
        rows = database.execute("select embedding, content, metadata from embeddings order by rowid").fetchall()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{show(path)}: is no embeddings database of llm: {error}") from None
    finally:
        database.close()
    facts = [{**read_metadata(metadata), "text": content} for _, content, metadata in rows]
    return Entries(facts, stack_vectors(path, [np.frombuffer(data, "<f4") for data, _, _ in rows]))


def read_metadata(given: str | None) -> dict[str, Any]:
    found = json.loads(given) if given else {}
    return {name: found[name] for name in FACTS[:3] if name in found} if isinstance(found, dict) else {}


def stack_vectors(path: Path, vectors: Any) -> Array:
    """float32 (n, C). Raises UserError for vectors of different lengths, missing ones, NaN and Inf."""
    try:
        found = np.array(vectors, np.float32)
    except (ValueError, TypeError):
        found = np.empty(0, np.float32)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise UserError(f"{show(path)}: expected finite vectors, all of one length")
    return found


WRITERS: dict[str, Callable[[Path, Entries, str], None]] = {
    ".parquet": write_vector_table,
    ".sqlite": write_llm,
    ".db": write_llm,
    ".usearch": write_usearch,
    ".faiss": write_faiss,
}
ENTRY_READERS: dict[str, Callable[[Path], Entries]] = {
    ".parquet": read_vector_table,
    ".sqlite": read_llm,
    ".db": read_llm,
    ".usearch": read_usearch,
    ".faiss": read_faiss,
}
