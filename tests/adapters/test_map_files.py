"""What `map` writes, read by the programs that it is written for.

TensorBoard is the real one. embedding-atlas would bring two dozen further packages, so its readers stand for it: pandas, by which
it loads a file, and DuckDB, which it asks for everything after that.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2wgpu.analyze.map_files import save_map, write_projector
from gpt2wgpu.analyze.maps import MapColumn, TextMap, map_column
from gpt2wgpu.analyze.neighbors import exact_neighbors, unit_vectors

N, WIDTH = 40, 6
VECTORS = np.random.default_rng(5).normal(size=(N, WIDTH)).astype(np.float32)
NASTY = ["", " ", "tab\there", "two\nlines", "a\\b", 'he said "é"', "日本語 😀", "\u2028"]


@pytest.fixture
def made() -> TextMap:
    """Texts of every kind; the first two, which are blank, are in no cluster and in no kind."""
    texts = NASTY + [f"text {i}" for i in range(N - len(NASTY))]
    cluster = MapColumn("cluster", np.r_[-1, -1, np.arange(N - 2) % 3], ["red", "green", "blue"])
    kind = map_column("kind", [None, None] + ["a", "b"] * (N // 2 - 1), N)
    points = VECTORS[:, :2].copy()
    return TextMap(
        'R&D #1: 100% + "é"\\', texts, {"t-SNE 2-D": points}, [cluster, kind], exact_neighbors(unit_vectors(VECTORS), 5)
    )


def test_tensorboard(made: TextMap, tmp_path: Path):
    """Its projector finds the folder, and its page, which asks for a tensor by its name as it is, gets every row."""
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    class NoRuns:
        def list_runs(self, context: object, *, experiment_id: str) -> list[object]:
            return []

    write_projector(f"{tmp_path}/projector/", made, VECTORS)
    answers = ProjectorPlugin(TBContext(logdir=f"{tmp_path}/projector", data_provider=NoRuns())).get_plugin_apps()

    def ask(route: str, query: str = "") -> bytes:
        answer = Client(answers[route]).get(route + query)
        assert answer.status_code == 200, answer.text
        return answer.data

    assert json.loads(ask("/runs")) == ["."]
    (found,) = json.loads(ask("/info", "?run=."))["embeddings"]
    assert found["tensorName"] == 'R-D -1: 100- - "é"\\' and found["tensorShape"] == [N, WIDTH]
    vectors = np.frombuffer(ask("/tensor", f"?run=.&name={found['tensorName']}"), "<f4").reshape(N, WIDTH)
    np.testing.assert_allclose(vectors, VECTORS, rtol=1e-6)
    lines = ask("/metadata", f"?run=.&name={found['tensorName']}").decode().split("\n")
    header, *rows = [line.split("\t") for line in lines if line.strip()]  # the page skips lines of blanks
    assert header == ["text", "cluster", "kind"] and len(rows) == N and {len(row) for row in rows} == {3}
    assert rows[:4] == [["(empty)", "", ""], ["(empty)", "", ""], ["tab\\there", "red", "a"], ["two\\nlines", "green", "b"]]
    assert [row[1] for row in rows] == made.columns[0].shown and rows[-1][0] == made.texts[-1]


def test_embedding_atlas(made: TextMap, tmp_path: Path):
    """`--text text --x x --y y --neighbors neighbors`: the neighbours of a row are row numbers from 0 and their distances."""
    import duckdb
    import pandas

    path = str(tmp_path / "map.parquet")
    save_map(made, path)
    frame = pandas.read_parquet(path)
    assert [*frame.columns] == ["text", "x", "y", "cluster", "label", "kind", "neighbors"] and len(frame) == N
    np.testing.assert_array_equal(frame[["x", "y"]].to_numpy(np.float32), made.layouts["t-SNE 2-D"])
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    for i, near in enumerate(frame["neighbors"]):
        assert near.keys() == {"ids", "distances"} and i not in near["ids"] and len({*near["ids"].tolist()}) == 5
        np.testing.assert_allclose(near["distances"], 1 - unit[near["ids"]] @ unit[i], atol=1e-6)
        assert near["distances"].tolist() == sorted(near["distances"])
    sql = f"select n.text from (select unnest(neighbors.ids) as id from '{path}' where text = 'text 3') join '{path}' n"
    found = duckdb.sql(f"{sql} on n.file_row_number = id").fetchall()
    assert sorted(text for (text,) in found) == sorted(made.texts[i] for i in made.neighbors.rows[len(NASTY) + 3])
