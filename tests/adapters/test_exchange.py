"""Indexes in other programs: each finds in what we wrote what we find, and we take back what it holds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from encoders import refusal
from searching import Quiet, passages_of, update, vectors_by_text, write_folder

from gpt2wgpu import Encoder
from gpt2wgpu.search.exchange import export_index
from gpt2wgpu.search.query import encode_question, search_index
from gpt2wgpu.search.reader import Index, check_index
from gpt2wgpu.search.taking_in import import_index

QUERY = "t3 t7"


@pytest.fixture(scope="module")
def index(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("exchange")
    files = {f"{i}.txt": "\n\n".join(f"t{(i * j) % 15 + 1} t{j + i} " * 11 for j in range(1, 6)) for i in range(1, 8)}
    return update(encoder, folder / "index", write_folder(folder / "f", files))


@pytest.fixture(scope="module")
def best(encoder: Encoder, index: Index) -> list[str]:
    """The texts of our five best passages."""
    return [hit.text for hit in search_index(index, QUERY, encode_question(encoder, QUERY), 5, "semantic")]


def question(encoder: Encoder) -> np.ndarray:
    return encode_question(encoder, QUERY)


def test_lancedb(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    import lancedb
    from pyarrow import parquet

    export_index(index, tmp_path / "x.parquet", "gpt2wgpu")
    table = lancedb.connect(tmp_path / "lance").create_table("x", parquet.read_table(tmp_path / "x.parquet"))
    found = table.search(question(encoder)).distance_type("cosine").limit(5).to_list()
    assert [row["text"] for row in found] == best


def test_lancedb_reads_shards(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    """As Ray Data writes them (test_ray.py): a folder of Parquet files, batch by batch."""
    import lancedb
    from pyarrow import dataset, parquet

    export_index(index, tmp_path / "x.parquet", "gpt2wgpu")
    table = parquet.read_table(tmp_path / "x.parquet")
    (tmp_path / "shards").mkdir()
    for i in range(3):
        parquet.write_table(table.slice(12 * i, 12), tmp_path / "shards" / f"{i}.parquet")
    shards = dataset.dataset(tmp_path / "shards")
    made = lancedb.connect(tmp_path / "lance").create_table("x", shards.to_batches(), schema=shards.schema)
    assert made.count_rows() == table.num_rows
    found = made.search(question(encoder)).distance_type("dot").limit(5).to_list()
    assert [row["text"] for row in found] == best


def test_duckdb(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    import duckdb

    export_index(index, tmp_path / "x.parquet", "gpt2wgpu")
    width = index.width
    score = f"array_inner_product(vector::FLOAT[{width}], ?::FLOAT[{width}])"
    sql = f"select text, path, line from '{tmp_path}/x.parquet' order by {score} desc limit 5"
    found = duckdb.sql(sql, params=[question(encoder).tolist()]).fetchall()
    assert [text for text, _, _ in found] == best and found[0][1].endswith(".txt") and found[0][2] >= 1


def test_usearch(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    from usearch.index import Index as USearch

    export_index(index, tmp_path / "x.usearch", "gpt2wgpu")
    texts = [line["text"] for line in map(json.loads, (tmp_path / "x.usearch.jsonl").read_text().splitlines())]
    found = USearch.restore(str(tmp_path / "x.usearch")).search(question(encoder), 5, exact=True)
    assert [texts[int(key)] for key in found.keys] == best


def test_faiss(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    import faiss

    export_index(index, tmp_path / "x.faiss", "gpt2wgpu")
    texts = [line["text"] for line in map(json.loads, (tmp_path / "x.faiss.jsonl").read_text().splitlines())]
    _, found = faiss.read_index(str(tmp_path / "x.faiss")).search(question(encoder)[None], 5)
    assert [texts[key] for key in found[0]] == best


def test_llm(encoder: Encoder, index: Index, best: list[str], tmp_path: Path):
    import llm
    import sqlite_utils

    export_index(index, tmp_path / "notes.db", "gpt2wgpu")
    database = sqlite_utils.Database(tmp_path / "notes.db")
    collection = llm.Collection("notes", database, create=False)
    assert collection.count() == len(passages_of(index)) and collection.model_id == "gpt2wgpu"
    found = collection.similar_by_vector(question(encoder).tolist(), 5)
    assert [entry.content for entry in found] == best
    assert found[0].metadata["path"].endswith(".txt")
    database.close()


@pytest.mark.parametrize("name", ["x.parquet", "x.db", "x.usearch", "x.faiss"])
def test_what_was_written_is_taken_back(encoder: Encoder, index: Index, tmp_path: Path, name: str):
    export_index(index, tmp_path / name, "gpt2wgpu")
    assert not [*tmp_path.glob(".*")]
    found = import_index(encoder, tmp_path / "index", tmp_path / name, Quiet())
    assert passages_of(found) == passages_of(index)
    for text, vector in vectors_by_text(index).items():
        np.testing.assert_allclose(vectors_by_text(found)[text], vector, atol=1e-6)
    again = import_index(encoder, tmp_path / "index", tmp_path / name, Quiet())
    assert again.state.rows == found.state.rows
    check_index(again)


def test_a_file_that_is_searched_replaces_what_was_imported(encoder: Encoder, index: Index, tmp_path: Path):
    folder = Path(passages_path(index)).parent
    copy = shutil.copytree(folder, tmp_path / "f")
    own = update(encoder, tmp_path / "own", copy)
    export_index(own, tmp_path / "x.parquet", "gpt2wgpu")
    import_index(encoder, tmp_path / "index", tmp_path / "x.parquet", Quiet())
    write_folder(copy, {"1.txt": "t1"})
    assert passages_of(update(encoder, tmp_path / "index", copy)) == passages_of(update(encoder, tmp_path / "own", copy))


def passages_path(index: Index) -> str:
    return index.files_of(0)[0]


def test_vectors_of_another_model_are_refused(encoder: Encoder, index: Index, tmp_path: Path):
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    export_index(index, path, "gpt2wgpu")
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(0, "id", table["id"]).drop(["vector"]), tmp_path / "none.parquet")
    said = refusal(lambda: import_index(encoder, tmp_path / "index", tmp_path / "none.parquet", Quiet()))
    assert "expected a column text or content or sentence and a column vector or embedding, found id" in said
    vectors = np.roll(np.array(table["vector"].to_pylist(), np.float32), 1, axis=1)
    parquet.write_table(table.drop(["vector"]).append_column("vector", vectors.tolist() and [vectors.tolist()]), path)
    assert "use the model and the prompt that made it" in refusal(
        lambda: import_index(encoder, tmp_path / "index", path, Quiet())
    )
    short = [vectors[:, :3].tolist()]
    parquet.write_table(table.drop(["vector"]).append_column("vector", short), path)
    assert "holds vectors of 3 dimensions, and this model has 8" in refusal(
        lambda: import_index(encoder, tmp_path / "index", path, Quiet())
    )


def test_other_names_are_refused(encoder: Encoder, index: Index, tmp_path: Path):
    assert refusal(lambda: export_index(index, tmp_path / "x.csv", "m")) == (
        f"{tmp_path / 'x.csv'}: the name must end in one of .parquet .sqlite .db .usearch .faiss"
    )
    assert "no such file" in refusal(lambda: import_index(encoder, tmp_path / "i", tmp_path / "x.db", Quiet()))
    write_folder(tmp_path, {"y.db": "not a database at all, not even one page of it"})
    assert "is no embeddings database of llm" in refusal(
        lambda: import_index(encoder, tmp_path / "i", tmp_path / "y.db", Quiet())
    )


@pytest.mark.parametrize("name", ["x.parquet", "x.usearch", "x.faiss", "x.db"])
@pytest.mark.parametrize("content", ["", "PAR1 and what else a damaged file holds " * 9])
def test_damaged_files_are_refused(encoder: Encoder, tmp_path: Path, name: str, content: str):
    path = write_folder(tmp_path, {name: content, f"{name}.jsonl": '{"text": "t1"}\n'}) / name
    said = refusal(lambda: import_index(encoder, tmp_path / "i", path, Quiet()))
    assert said.startswith(f"{path}: ") and "\n" not in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([1, 2], "entry 1 has no text"),
        ({"line": "abc"}, "line of entry 1 must be a whole number from 1 to 4294967295, not 'abc'"),
        ({"line": -3}, "not -3"),
        ({"line": 2.5}, "not 2.5"),
        ({"last_line": 1 << 40}, "last_line of entry 1 must be"),
        ({"text": "t1 \u2028 t2", "line": 7.0}, ""),
    ],
)
def test_texts_beside_the_vectors_are_checked(
    encoder: Encoder, index: Index, tmp_path: Path, changed: list[int] | dict[str, object], said: str
):
    path = tmp_path / "x.faiss"
    export_index(index, path, "gpt2wgpu")
    beside = Path(f"{path}.jsonl")
    facts = [json.loads(line) for line in beside.read_bytes().splitlines()]
    facts[1] = {**facts[1], **changed} if isinstance(changed, dict) else changed
    beside.write_text("".join(f"{json.dumps(fact, ensure_ascii=False)}\n" for fact in facts), "utf-8")
    if said:
        assert said in refusal(lambda: import_index(encoder, tmp_path / "i", path, Quiet()))
    else:
        found = passages_of(import_index(encoder, tmp_path / "i", path, Quiet()))
        assert ("t1 \u2028 t2", 7) in [(text, line) for _, line, _, text in found]
