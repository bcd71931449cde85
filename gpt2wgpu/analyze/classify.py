"""Classes for texts, learnt from examples: logistic regression, nearest centroid, k nearest neighbours; and how good they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, between
from ..graph.tensor import Array
from ..vectors.top_k import top_k
from .clusters import import_sklearn
from .neighbors import finite_vectors, unit_vectors

CLASSIFIERS = ("logistic", "centroid", "knn")
ITERATIONS = 1000  # most, of the logistic regression


@dataclass(frozen=True)
class Classifier:
    """What was learnt.

    tensors: of "logistic" weight float64 (classes, C), or (1, C) for two, and bias; of "centroid" centroids float32
    (classes, C); of "knn" vectors float32 (n, C) and labels int64 (n,), and k.
    """

    method: str
    classes: list[str]
    tensors: dict[str, Array]
    k: int = 5

    @property
    def dimensions(self) -> int:
        return int(next(t.shape[1] for t in self.tensors.values() if t.ndim == 2))

    def probabilities(self, vectors: Any) -> Array:
        """Of each class for each row (n, C): float64 (n, classes), rows of sum 1.

        "logistic": the model's probabilities. "centroid": softmax of ten times the cosines, which is not calibrated. "knn": the
        share of the k nearest examples. Raises UserError for vectors of another length, or not finite.
        """
        return self.choose(vectors)[1]

    def predict(self, vectors: Any) -> list[str]:
        """The most probable class of each row; of equally probable ones, "knn" takes that of the nearest example among these."""
        return [self.classes[i] for i in self.choose(vectors)[0].tolist()]

    def choose(self, vectors: Any) -> tuple[Array, Array]:
        """Each row's class, int64 (n,), and the probabilities (n, classes)."""
        rows = finite_vectors(vectors)
        if not len(rows):
            return np.empty(0, np.int64), np.empty((0, len(self.classes)))
        if rows.shape[1] != self.dimensions:
            raise UserError(f"the classifier was trained on vectors of {self.dimensions} numbers, these have {rows.shape[1]}")
        if self.method == "logistic":
            scores = rows @ self.tensors["weight"].T + self.tensors["bias"]
            found = softmax_rows(np.hstack([-scores, scores]) / 2 if scores.shape[1] == 1 else scores)
        elif self.method == "centroid":
            found = softmax_rows(10.0 * (unit_vectors(rows) @ self.tensors["centroids"].T).astype(np.float64))
        else:
            return self._vote(rows)
        return found.argmax(axis=1), found

    def _vote(self, rows: Array) -> tuple[Array, Array]:
        """`choose` by the k nearest examples."""
        nearest = self.tensors["labels"][top_k(rows, self.tensors["vectors"], self.k, cosine=True).ids]
        found = np.stack([(nearest == i).mean(axis=1) for i in range(len(self.classes))], axis=1)
        best = found == found.max(axis=1, keepdims=True)
        each = np.arange(len(rows))
        return nearest[each, best[each[:, None], nearest].argmax(axis=1)], found


def softmax_rows(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def train_classifier(vectors: Any, labels: Sequence[str], method: str = "logistic", *, k: int = 5) -> Classifier:
    """Learn classes from examples: vectors (n, C) and the label of each.

    method: "logistic": scikit-learn's LogisticRegression on the vectors as they are, up to 1,000 iterations, else with its
    defaults (the extra `analyze`). "centroid": the class whose
    mean is nearest by cosine. "knn": most of the k nearest examples. Raises UserError unless there are two classes.
    """
    rows = finite_vectors(vectors)
    if len(rows) != len(labels):
        raise UserError(f"each vector needs a label, got {len(rows):,} vectors and {len(labels):,} labels")
    classes = list_classes(labels)
    if len(classes) < 2:
        found = f"all {len(labels):,} examples are {classes[0]!r}" if classes else "there are no examples"
        raise UserError(f"a classifier needs examples of at least two classes, {found}")
    codes = code_labels(labels, classes)
    if method == "logistic":
        return Classifier(method, classes, fit_logistic(rows, codes))
    if method == "centroid":
        unit = unit_vectors(rows)
        means = np.stack([unit[codes == i].mean(axis=0) for i in range(len(classes))])
        return Classifier(method, classes, {"centroids": unit_vectors(means)})
    if method == "knn":
        return Classifier(method, classes, {"vectors": rows, "labels": codes}, min(between("k", k, 1, 10_000), len(rows)))
    raise UserError(f"method must be one of {', '.join(CLASSIFIERS)}, not {method!r}")


def list_classes(labels: Sequence[str]) -> list[str]:
    """The classes in their order. Raises UserError for a label that is missing, and for labels that cannot be ordered."""
    for row, label in enumerate(labels):
        if label is None or label != label:
            raise UserError(f"label {row} is {label!r}, expected a class: give it one, or leave out its vector")
    try:
        return sorted(set(labels))
    except TypeError:
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise UserError(f"labels must be texts, found {kinds}: turn all of them into texts") from None


def code_labels(labels: Sequence[str], classes: Sequence[str]) -> Array:
    """The number of each label's class, int64 (n,)."""
    code = {name: i for i, name in enumerate(classes)}
    return np.array([code[label] for label in labels], np.int64)


def fit_logistic(rows: Array, codes: Array) -> dict[str, Array]:
    import_sklearn("logistic regression")
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=ITERATIONS).fit(rows, codes)
    return {"weight": fitted.coef_.astype(np.float64), "bias": fitted.intercept_.astype(np.float64)}


@dataclass(frozen=True)
class ClassScores:
    """accuracy and macro_f1 over the tested examples. by_class: precision, recall, F1 and number of tested examples of each.
    majority: the accuracy of always saying the most frequent class. folds: how many times was trained. untested: classes of
    which there is one example, which is always trained on."""

    accuracy: float
    macro_f1: float
    majority: float
    by_class: dict[str, tuple[float, float, float, int]]
    folds: int
    untested: list[str]


def cross_validate(
    vectors: Any, labels: Sequence[str], method: str = "logistic", *, k: int = 5, folds: int = 5, seed: int = 0
) -> ClassScores:
    """Train on all folds but one and test on that one, for each. Every fold has about the same share of each class.

    Raises UserError as `train_classifier`, and if no class has two examples.
    """
    rows = finite_vectors(vectors)
    between("folds", folds, 2, 1000)
    between("seed", seed, 0, (1 << 63) - 1)
    classes = list_classes(labels)
    codes, names = code_labels(labels, classes), np.array(labels, object)
    sizes = np.bincount(codes, minlength=len(classes))
    if len(classes) > 1 and sizes.max() < 2:
        raise UserError("each class has one example only: cross-validation needs two of a class")
    folds = int(min(folds, max(2, sizes.max())))
    predicted = np.full(len(codes), -1)
    for test in stratified_folds(codes, folds, seed):
        train = np.setdiff1d(np.arange(len(codes)), test)
        fitted = train_classifier(rows[train], names[train].tolist(), method, k=k)
        predicted[test] = code_labels(fitted.predict(rows[test]), classes)
    tested = predicted >= 0
    by_class = {name: class_score(codes[tested], predicted[tested], i) for i, name in enumerate(classes) if sizes[i] > 1}
    accuracy = float((codes == predicted)[tested].mean())
    majority = float(np.bincount(codes[tested]).max() / tested.sum())
    untested = [name for i, name in enumerate(classes) if sizes[i] == 1]
    return ClassScores(accuracy, float(np.mean([f1 for _, _, f1, _ in by_class.values()])), majority, by_class, folds, untested)


def stratified_folds(codes: Array, folds: int, seed: int) -> Iterator[Array]:
    """The rows to test in each fold. A class of one example is in none."""
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    of = np.full(len(codes), -1)
    start = 0
    for code in np.unique(codes):
        rows = shuffled[codes[shuffled] == code]
        if len(rows) > 1:
            of[rows] = (start + np.arange(len(rows))) % folds
            start += len(rows)  # where classes are small, they begin with different folds
    yield from (rows for fold in range(folds) if len(rows := np.flatnonzero(of == fold)))


def class_score(true: Array, predicted: Array, code: int) -> tuple[float, float, float, int]:
    """Precision, recall, F1 and number of examples of one class; 0 where nothing can be divided by."""
    hits = int(np.count_nonzero((true == code) & (predicted == code)))
    said, there = int(np.count_nonzero(predicted == code)), int(np.count_nonzero(true == code))
    return hits / max(1, said), hits / max(1, there), 2 * hits / max(1, said + there), there
