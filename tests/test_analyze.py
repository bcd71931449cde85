"""Duplicates, clusters and classes: what they find, and awkward input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from gpt2wgpu import (
    UserError,
    cluster_texts,
    cross_validate,
    find_duplicates,
    load_classifier,
    save_classifier,
    train_classifier,
)
from gpt2wgpu.analyze.clusters import CLUSTER_METHODS
from gpt2wgpu.analyze.neighbors import exact_neighbors, unit_vectors
from gpt2wgpu.analyze.topics import cluster_words, topic_words

RANDOM = np.random.default_rng(3)


def blobs(sizes: list[int], width: int = 16, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, C) around orthogonal centres, and the number of each one's centre, in a mixed order."""
    of = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (np.eye(width)[of] + noise * np.random.default_rng(2).normal(size=(len(of), width))).astype(np.float32), of


def test_neighbors_are_exact():
    vectors = unit_vectors(RANDOM.normal(size=(300, 24)))
    found = exact_neighbors(vectors, 7)
    cosines = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(cosines, -2)
    best = np.argsort(-cosines, axis=1)[:, :7]
    assert np.array_equal(found.rows, best)
    np.testing.assert_allclose(found.similarities, np.take_along_axis(cosines, best, 1), atol=1e-6)


def test_neighbors_of_equal_rows_are_others():
    found = exact_neighbors(unit_vectors(np.ones((50, 3))), 4)
    assert found.rows[0].tolist() == [1, 2, 3, 4] and found.rows[49].tolist() == [0, 1, 2, 3]


def test_duplicates_are_all_pairs_above_the_threshold():
    vectors, _ = blobs([20, 20, 3], noise=0.25)
    found = find_duplicates(vectors, 0.6)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = unit @ unit.T
    expected = {(i, j) for i in range(len(unit)) for j in range(i + 1, len(unit)) if cosines[i, j] >= 0.6}
    assert {(i, j) for i, j in found.pairs.tolist()} == expected and 20 < len(expected) < 400
    assert (np.diff(found.similarities) <= 0).all()
    np.testing.assert_allclose(found.similarities, cosines[tuple(found.pairs.T)], atol=1e-6)


def test_groups_are_connected_components():
    angles = np.radians([0, 20, 40, 90, 180, 200, 200, 0])  # 0-20-40 are connected, 0 and 40 are not a pair
    found = find_duplicates(np.stack([np.cos(angles), np.sin(angles)], 1), 0.93)
    assert found.groups == [[0, 1, 2, 7], [4, 5, 6]]
    assert [0, 2] not in found.pairs.tolist() and [0, 7] in found.pairs.tolist()


def test_a_chain_of_pairs_is_one_group():
    angles = np.radians(np.random.default_rng(0).permutation(np.arange(0, 300, 0.5)))
    assert len(find_duplicates(np.stack([np.cos(angles), np.sin(angles)], 1), 0.9999).groups) == 1


def test_many_equal_texts_are_one_group():
    found = find_duplicates(np.repeat(RANDOM.normal(size=(1, 8)), 3000, axis=0))
    assert len(found.pairs) == 2999 and found.groups == [[*range(3000)]]


@pytest.mark.parametrize("vectors", [np.empty((0, 4)), np.ones((1, 4)), np.zeros((1, 4))])
def test_few_vectors_have_no_duplicates(vectors: np.ndarray):
    found = find_duplicates(vectors)
    assert found.pairs.shape == (0, 2) and found.groups == []


def test_vectors_that_are_not_finite_are_named():
    vectors = np.ones((4, 3), np.float32)
    vectors[2, 1] = np.nan
    for call in (find_duplicates, lambda v: cluster_texts(["a"] * 4, v), lambda v: train_classifier(v, list("abab"), "knn")):
        with pytest.raises(UserError, match="vector 2 has NaN"):
            call(vectors)


@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_clusters_are_found_and_named(method: str):
    vectors, of = blobs([40, 25, 15])
    words = [["cat", "kitten"], ["loan", "bank"], ["rain", "cloud"]]
    texts = [f"the {words[c][i % 2]} number {i} of all" for i, c in enumerate(of)]
    found = cluster_texts(texts, vectors, method, clusters=3 if method == "kmeans" else None, threshold=0.7)
    kept = found.numbers >= 0
    assert kept.mean() > 0.9 and np.array_equal(found.numbers[kept], of[kept])  # numbered by size
    assert [set(w[:2]) for w in found.words] == [set(w) for w in words]
    assert all("the" not in w and "all" not in w for w in found.words)
    assert all(of[row] == i for i, rows in enumerate(found.central) for row in rows)


@pytest.mark.parametrize("method", CLUSTER_METHODS)
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_clusters_of_awkward_texts(method: str, n: int):
    """None, one, and many that are the same."""
    if method == "kmeans" and n == 0:
        with pytest.raises(UserError, match="clusters must be a whole number from 1 to 1"):
            cluster_texts([], np.empty((0, 4)), method)
        return
    found = cluster_texts(["same"] * n, np.ones((n, 4)), method, clusters=1, min_size=2)
    assert len(found.numbers) == n and max(found.numbers, default=-1) <= 0


def test_a_missing_choice_is_refused():
    with pytest.raises(UserError, match="communities, hdbscan, kmeans"):
        cluster_texts(["a"], np.ones((1, 2)), "dbscan")
    with pytest.raises(UserError, match="a vector for each text"):
        cluster_texts(["a"], np.ones((2, 2)))


def test_words_of_any_script():
    assert [*topic_words("Don't stop: naïve Straße 日本語 3D x1")] == ["don't", "stop", "naïve", "straße", "日本", "本語", "x1"]
    found = cluster_words(["猫が好き", "猫です", "犬が好き", "犬です"], np.array([0, 0, 1, 1]))
    assert len(found) == 2 and cluster_words([], np.empty(0, np.int64)) == []


def labelled(n: int = 240) -> tuple[np.ndarray, list[str]]:
    vectors, of = blobs([n // 2, n // 3, n // 6], noise=0.6)
    return vectors, [("alpha", "beta", "gamma")[c] for c in of]


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_is_that_of_scikit_learn(classes: int, tmp_path: Path):
    vectors, labels = labelled()
    labels = [label if classes == 3 else str(label == "alpha") for label in labels]
    train, test = vectors[:160], vectors[160:]
    theirs = LogisticRegression(max_iter=1000).fit(train, labels[:160])
    save_classifier(str(tmp_path / "c"), train_classifier(train, labels[:160]), {})
    ours, _ = load_classifier(str(tmp_path / "c"))
    assert ours.classes == theirs.classes_.tolist() and ours.predict(test) == theirs.predict(test).tolist()
    np.testing.assert_allclose(ours.probabilities(test), theirs.predict_proba(test), atol=1e-6)
    accuracy = np.mean([a == b for a, b in zip(ours.predict(test), labels[160:], strict=True)])
    assert accuracy == theirs.score(test, labels[160:]) and 0.5 < accuracy < 1


@pytest.mark.parametrize("method", ["centroid", "knn"])
def test_classes_without_scikit_learn(method: str, tmp_path: Path):
    vectors, of = blobs([30, 20, 10], noise=0.1)
    labels = [f"class {c}" for c in of]
    save_classifier(str(tmp_path / "c"), train_classifier(vectors[:40], labels[:40], method, k=3), {"note": 1})
    found, facts = load_classifier(str(tmp_path / "c"))
    assert found.predict(vectors[40:]) == labels[40:] and facts["note"] == 1
    np.testing.assert_allclose(found.probabilities(vectors).sum(axis=1), 1)
    assert found.predict(np.empty((0, 16))) == []
    with pytest.raises(UserError, match="trained on vectors of 16 numbers, these have 4"):
        found.predict(np.ones((1, 4)))
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".safetensors", ".json"}


def test_knn_takes_the_nearest_of_equal_votes():
    found = train_classifier([[1, 0.1], [0, 1.0]], ["far", "near"], "knn", k=2)
    assert found.predict([[0.3, 1]]) == ["near"] and found.predict([[1, 0.3]]) == ["far"]


def test_cross_validation_tests_each_example_once():
    vectors, labels = labelled()
    scores = cross_validate(vectors, labels, "centroid", folds=4)
    assert sum(count for *_, count in scores.by_class.values()) == len(labels) and scores.folds == 4
    assert scores.majority == 0.5 and 0.5 < scores.accuracy < 1
    assert scores == cross_validate(vectors, labels, "centroid", folds=4) != cross_validate(vectors, labels, "centroid", seed=1)


def test_cross_validation_does_not_know_the_answer():
    """Labels that have nothing to do with the vectors: a score above chance would mean that test examples were trained on."""
    vectors = np.random.default_rng(0).normal(size=(400, 8))
    labels = [str(i) for i in np.random.default_rng(1).integers(0, 2, 400)]
    for method in ("centroid", "knn", "logistic"):
        assert cross_validate(vectors, labels, method).accuracy < 0.6


def test_classes_of_one_example():
    vectors, _ = blobs([6, 6, 1])
    labels = ["a"] * 6 + ["b"] * 6 + ["rare"]
    assert cross_validate(vectors, labels, "knn").untested == ["rare"]
    with pytest.raises(UserError, match="each class has one example only"):
        cross_validate(vectors[:2], ["a", "b"])
    assert train_classifier(vectors[:2], ["a", "b"], "knn").k == 2
    with pytest.raises(UserError, match="at least two classes, all 2 examples are 'a'"):
        train_classifier(vectors[:2], ["a", "a"])


@pytest.mark.parametrize("learn", [train_classifier, cross_validate])
def test_labels_that_are_no_classes_are_refused(learn: Callable):
    vectors, _ = blobs([2, 2])
    for missing in (None, float("nan")):
        with pytest.raises(UserError, match=f"label 2 is {missing}, expected a class"):
            learn(vectors, ["a", "b", missing, "b"], "centroid")
    with pytest.raises(UserError, match="labels must be texts, found int, str"):
        learn(vectors, ["a", 1, "a", 1], "centroid")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "another version"),
        ({"method": "tree"}, "no method"),
        ({"classes": ["a"]}, "no list of classes"),
        ({"classes": ["a", "b", "c"]}, "does not fit the classes"),
        ({"k": 99}, "does not fit the classes"),
    ],
)
def test_a_damaged_classifier_is_refused(change: dict, message: str, tmp_path: Path):
    folder = tmp_path / "c"
    save_classifier(str(folder), train_classifier(np.eye(4), list("abab"), "knn" if "k" in change else "centroid"), {})
    facts = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(UserError, match=message):
        load_classifier(str(folder))


def test_labels_outside_the_classes_are_refused(tmp_path: Path):
    made = train_classifier(np.eye(4), list("abab"), "knn")
    save_classifier(str(tmp_path / "c"), made, {})
    save_file({**made.tensors, "labels": np.array([0, 1, 2, 0])}, tmp_path / "c" / "classifier.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        load_classifier(str(tmp_path / "c"))
    (tmp_path / "c" / "classifier.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UserError, match="cannot be read"):
        load_classifier(str(tmp_path / "c"))
