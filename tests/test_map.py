"""A map: forces, layout, clusters on it, and how well it keeps neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest
from pages import REPOSITORY
from pyarrow import parquet
from sklearn.manifold import TSNE, trustworthiness

from gpt2wgpu import Encoder, UserError, map_texts, save_map
from gpt2wgpu.analyze import layout
from gpt2wgpu.analyze.density import density_clusters
from gpt2wgpu.analyze.device_forces import DeviceForces, suits_device
from gpt2wgpu.analyze.forces import edge_attraction, exact_repulsion, grid_length, grid_repulsion
from gpt2wgpu.analyze.layout import neighbor_layout, neighbor_strengths, principal_components
from gpt2wgpu.analyze.map_files import write_projector
from gpt2wgpu.analyze.map_page import column_data, quantise_places
from gpt2wgpu.analyze.maps import map_column
from gpt2wgpu.analyze.neighbors import Neighbors, distinct_rows, exact_neighbors, expand_neighbors, unit_vectors
from gpt2wgpu.gpu import Device

RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Of 1,200 sentences, by the built-in model."""
    lines = (REPOSITORY / "data_sets" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:601]
    return Encoder(device="numpy").encode([text for line in lines for text in line.split("\t")[1:3]])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout of few rounds, for tests of everything else."""
    monkeypatch.setattr(layout, "ROUNDS", (10, 10))


@pytest.mark.parametrize(("dims", "spread"), [(2, 10), (2, 200), (3, 5)])
def test_the_grid_repels_as_all_pairs_do(dims: int, spread: float):
    points = RANDOM.normal(size=(700, dims)) * spread
    (near, near_z), (exact, exact_z) = grid_repulsion(points), exact_repulsion(points)
    if spread < 100:  # further apart the grid is coarser than the kernel
        assert np.linalg.norm(near - exact) < (0.08 if dims == 2 else 0.2) * np.linalg.norm(exact)
    assert near_z == pytest.approx(exact_z, rel=0.03 if spread < 100 else 0.3)


def test_exact_repulsion_is_its_formula():
    points = RANDOM.normal(size=(7, 2))
    push, z = exact_repulsion(points)
    kernel = [[1 / (1 + ((a - b) ** 2).sum()) for b in points] for a in points]
    expected = [sum((points[i] - points[j]) * kernel[i][j] ** 2 for j in range(7)) for i in range(7)]
    np.testing.assert_allclose(push, expected, atol=1e-6)  # f32, and the pushes of the other points may cancel
    assert z == pytest.approx(np.sum(kernel) - 7, rel=1e-5)


def test_attraction_is_its_formula():
    points = RANDOM.normal(size=(6, 3))
    one, other, strength = np.array([0, 0, 2]), np.array([1, 5, 3]), np.array([0.5, 1.0, 2.0])
    expected = np.zeros((6, 3))
    for i, j, s in zip(one, other, strength, strict=True):
        pull = s * (points[j] - points[i]) / (1 + ((points[i] - points[j]) ** 2).sum())
        expected[i] += pull
        expected[j] -= pull
    np.testing.assert_allclose(edge_attraction(points, one, other, strength), expected, atol=1e-12)


def test_strengths_have_the_perplexity():
    strengths = neighbor_strengths(RANDOM.uniform(0.1, 1, (20, 30)), 15.0)
    np.testing.assert_allclose(np.exp(-(strengths * np.log(strengths)).sum(axis=1)), 15, rtol=1e-4)
    assert np.isfinite(neighbor_strengths(np.zeros((3, 4)), 2.0)).all()


def test_grid_lengths_reach_far_enough():
    assert [grid_length(n) for n in (1, 17, 380)] == [16, 20, 384]


def test_neighbours_are_kept_as_well_as_by_scikit_learn(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theirs = trustworthiness(unit, TSNE(random_state=0, init="pca").fit_transform(unit), n_neighbors=15)
    ours = neighbor_layout(vectors)
    assert trustworthiness(unit, ours, n_neighbors=15) >= theirs - 0.02
    assert (
        trustworthiness(unit, principal_components(vectors), n_neighbors=15) < theirs - 0.05
    )  # so that the bound means something


def test_the_order_of_rows_moves_no_point(vectors: np.ndarray, short: None):
    some = np.unique(vectors[:700], axis=0)
    order = np.random.default_rng(0).permutation(len(some))
    assert neighbor_layout(some[order]).tobytes() == neighbor_layout(some)[order].tobytes()
    assert principal_components(some[order]).tobytes() == principal_components(some)[order].tobytes()
    assert neighbor_layout(some, 3).tobytes() == neighbor_layout(some, 3).tobytes()
    assert not np.array_equal(neighbor_layout(some, seed=1), neighbor_layout(some, seed=2))


def test_components_are_those_of_the_covariance(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    variances = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)[:3] ** 2 / len(unit)
    np.testing.assert_allclose(principal_components(vectors, 3).var(axis=0), variances, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
def test_few_or_equal_rows(rows: int, dims: int, short: None):
    for vectors in (RANDOM.normal(size=(rows, 6)), np.ones((rows, 6)), np.zeros((rows, 6)), np.repeat(np.eye(3), rows, axis=0)):
        for found in (neighbor_layout(vectors, dims), principal_components(vectors, dims)):
            assert found.shape == (len(vectors), dims) and np.isfinite(found).all()


def test_equal_rows_stand_together(short: None):
    vectors = np.concatenate([RANDOM.normal(size=(50, 8)), np.repeat(RANDOM.normal(size=(1, 8)), 30, axis=0)])
    points = neighbor_layout(vectors)
    assert np.ptp(points[50:], axis=0).max() < 0.15 * np.ptp(points, axis=0).max()
    assert len(np.unique(points[50:], axis=0)) == 30


def test_neighbours_of_equal_rows():
    rows = np.array([[1, 0], [0, 1], [1, 0], [1, 0.1], [1, 0]], np.float32)
    distinct = distinct_rows(rows)
    found = expand_neighbors(layout.layout_neighbors(distinct), distinct.place, 3)
    assert [sorted(near) for near in found.rows[[0, 2, 4]].tolist()] == [[2, 3, 4], [0, 3, 4], [0, 2, 3]]
    assert sorted(found.rows[3].tolist()) == [0, 2, 4] and found.rows[1].tolist()[0] == 3


def test_clusters_are_the_islands():
    of = np.repeat([0, 1, 2], [300, 200, 80])
    points = np.array([[0, 0], [9, 0], [3, 12]])[of] + RANDOM.normal(size=(580, 2))
    assert np.array_equal(density_clusters(points), of)
    lone = density_clusters(np.concatenate([points, [[40.0, 40.0]]]))
    assert lone[-1] == -1 and set(lone[:-1]) == {0, 1, 2}
    assert density_clusters(np.zeros((2, 2))).tolist() == [-1, -1] and set(density_clusters(np.zeros((9, 2)))) == {0}


def test_far_off_numbers_leave_colours_for_the_others():
    found = column_data(map_column("n", [*range(1000), 10**6], 1001))
    assert found["beyond"] and 0 < found["low"] < 20 and 980 < found["high"] < 1000
    endless = map_column("n", [*range(20), float("inf")], 21)
    assert endless.names is None and np.isnan(endless.values[20])
    few = column_data(map_column("n", [0.5, *range(20), 10**6, None], 23))
    assert not few["beyond"] and (few["low"], few["high"]) == (0, 10**6)


def test_places_keep_their_proportions():
    found = quantise_places(np.array([[0, 0], [10, 0], [0, 5]], np.float32)).astype(int)
    assert found.dtype.kind == "i" and (found[:, 2] == 32768).all()
    assert found[1, 0] - found[0, 0] == pytest.approx(2 * (found[2, 1] - found[0, 1]), abs=2)


def test_columns_of_a_map(short: None):
    texts = [f"text {i}" for i in range(40)]
    columns = {"year": [*range(2000, 2040)], "kind": ["a", "b"] * 20, "some": [None, "x"] * 20, "flag": [True, False] * 20}
    made = map_texts(texts, RANDOM.normal(size=(40, 8)), columns, three=False)
    found = {c.name: c for c in made.columns}
    assert found["year"].names is None and found["kind"].names == ["a", "b"] and found["flag"].names == ["False", "True"]
    assert found["some"].names == ["x"] and found["some"].values.tolist() == [-1, 0] * 20
    assert [*made.layouts] == ["t-SNE 2-D", "PCA 2-D", "PCA 3-D"]


def test_a_map_that_cannot_be_made_is_refused():
    with pytest.raises(UserError, match="no texts to map"):
        map_texts([], np.empty((0, 4)))
    with pytest.raises(UserError, match="2 vectors for 1 texts"):
        map_texts(["a"], np.ones((2, 4)))
    with pytest.raises(UserError, match="vector 0 has NaN"):
        map_texts(["a"], np.full((1, 4), np.nan))
    with pytest.raises(UserError, match="column 'x' has 1 values for 2 texts"):
        map_texts(["a", "b"], np.ones((2, 4)), {"x": [1]})


def test_the_points_have_the_columns_that_others_read(tmp_path: Path, short: None):
    texts = [f"tab\t{i} $x^2$" for i in range(30)]
    made = map_texts(texts, RANDOM.normal(size=(30, 8)), {"year": [float(i) for i in range(30)], "x": ["own"] * 30})
    for name in ("map.parquet", "map.jsonl", "map.tsv", "map.png"):
        save_map(made, str(tmp_path / name))
    table = parquet.read_table(tmp_path / "map.parquet")
    assert table.column_names == ["text", "x", "y", "cluster", "label", "year", "neighbors"]
    near = table.column("neighbors").to_pylist()
    assert near[0]["ids"] == made.neighbors.rows[0].tolist() and near[0]["distances"] == sorted(near[0]["distances"])
    assert table.column("x").to_pylist() == made.layouts["t-SNE 2-D"][:, 0].tolist()
    assert json.loads((tmp_path / "map.jsonl").read_text().splitlines()[3])["text"] == texts[3]
    lines = (tmp_path / "map.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["text", "x", "y", "cluster", "label", "year"] and len(lines) == 31
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_the_projector_reads_its_files(tmp_path: Path, short: None):
    """tests/adapters/test_map_files.py asks TensorBoard itself."""
    vectors = RANDOM.normal(size=(12, 5)).astype(np.float32)
    write_projector(f"{tmp_path}/p/", map_texts([f"a\n{i}" for i in range(11)] + [" "], vectors), vectors)
    assert {p.name for p in (tmp_path / "p").iterdir()} == {"vectors.tsv", "metadata.tsv", "projector_config.pbtxt"}
    np.testing.assert_allclose(np.loadtxt(tmp_path / "p" / "vectors.tsv", delimiter="\t"), vectors, rtol=1e-5)
    metadata = (tmp_path / "p" / "metadata.tsv").read_text().splitlines()
    assert metadata[0] == "text\tcluster" and len(metadata) == 13 and metadata[-1].startswith("(empty)\t")


def test_a_map_of_one_text(tmp_path: Path):
    made = map_texts(["alone"], np.ones((1, 4)))
    assert isinstance(made.neighbors, Neighbors) and made.neighbors.rows.shape == (1, 0)
    for name in ("a.html", "a.png", "a.parquet", "a.tsv"):
        save_map(made, str(tmp_path / name))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_device_pushes_and_pulls_alike(device: Device, dims: int):
    vectors = RANDOM.normal(size=(400, 8))
    found = exact_neighbors(unit_vectors(vectors), 9)
    edges = layout.undirected_edges(found.rows, neighbor_strengths(np.maximum(0, 2 - 2 * found.similarities), 4.0))
    points = RANDOM.normal(size=(400, dims)) * 4
    forces = DeviceForces(device, 400, edges)
    push, pull, z = forces.compute(points)
    forces.close()
    expected, expected_z = exact_repulsion(points)
    np.testing.assert_allclose(push, expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(pull, edge_attraction(points, *edges), atol=2e-5 * np.abs(pull).max())
    assert z == pytest.approx(expected_z, rel=1e-5)


def test_a_layout_on_a_device_keeps_neighbours(device: Device, monkeypatch: pytest.MonkeyPatch):
    """Every device suits, so that a software one computes what a GPU would."""
    monkeypatch.setattr(layout, "suits_device", lambda device, points: True)
    of = np.repeat(np.arange(5), 40)
    vectors = (np.eye(12)[of] + 0.1 * RANDOM.normal(size=(200, 12))).astype(np.float32)
    distinct = distinct_rows(unit_vectors(vectors))
    points = layout.layout_distinct(distinct, layout.layout_neighbors(distinct), device=device)
    near = np.linalg.norm(points[:, None] - points[None], axis=2).argsort(axis=1)[:, 1:11]
    assert (of[near] == of[:, None]).mean() > 0.98


def test_devices_suit_many_points():
    assert not suits_device(None, 10_000)
