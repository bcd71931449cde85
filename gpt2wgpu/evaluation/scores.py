"""How well a model's similarities agree with what people say about pairs of sentences.

The measures are those of sentence-transformers' EmbeddingSimilarityEvaluator and BinaryClassificationEvaluator, except that
pairs of equal similarity are never told apart: a threshold lies between two different values (as in scikit-learn).
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..encoder import Encoder
from ..errors import UserError, between
from ..files.pairs import Pairs
from ..graph.ops import l2_normalize
from ..graph.tensor import Array
from ..vectors.measures import Vector, pearson_correlation
from ..vectors.pairwise import SIMILARITIES, row_by_row

VECTORS = 1 << 28  # numbers of all layers' vectors together: 1 GiB
Scores = dict[str, dict[str, float]]  # of each similarity, each measure


def check_options(pairs: Pairs) -> None:
    """Refuse pairs that nothing can be measured with."""
    if pairs.targets is None or pairs.targets.min() == pairs.targets.max():
        raise UserError(f"all {len(pairs)} pairs have the same target: there is nothing to tell apart")


def evaluate_pairs(encoder: Encoder, pairs: Pairs, **encode: Any) -> Scores:
    """The measures of every similarity; distances are negated, so that higher is closer. Keywords go to `encoder.encode`."""
    check_options(pairs)
    sentences = distinct_texts(pairs)
    return scores(encoder.encode(sentences, **encode), sentences, pairs)


def distinct_texts(pairs: Pairs) -> list[str]:
    """Each sentence once."""
    return [*dict.fromkeys([*pairs.sentences1, *pairs.sentences2])]


def scores(vectors: Array, sentences: Sequence[str], pairs: Pairs) -> Scores:
    """The measures of every similarity of pairs, from vectors of the sentences, (n, C)."""
    assert pairs.targets is not None
    row = {text: i for i, text in enumerate(sentences)}
    a, b = (vectors[[row[text] for text in texts]] for texts in (pairs.sentences1, pairs.sentences2))
    return {name: measures(row_by_row(a, b, name), pairs.targets, pairs.labelled) for name in SIMILARITIES}


def measures(similarity: Array, targets: Vector, labelled: bool) -> dict[str, float]:
    """Of similarities (n,) and what they should agree with (n,): correlations, and of labels how well they are told apart."""
    similarity = similarity.astype(np.float64)
    found = {
        "spearman": pearson_correlation(ranks(similarity), ranks(targets)),
        "pearson": pearson_correlation(similarity, targets),
    }
    if labelled:
        accuracy, threshold = best_accuracy(similarity, targets)
        found |= {"accuracy": accuracy, "threshold": threshold}
        found |= {"average_precision": average_precision(similarity, targets), "auc": auc(similarity, targets)}
    return found


def ranks(values: Vector) -> Vector:
    """Place of each value in ascending order, from 1; equal values share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def thresholds(similarity: Vector, labels: Vector) -> tuple[Vector, Vector, Vector]:
    """The different similarities, descending, and how many pairs of label 1 and of label 0 are at least as similar."""
    values, inverse = np.unique(-similarity, return_inverse=True)
    true, false = (np.cumsum(np.bincount(inverse, which)).astype(np.float64) for which in (labels, 1 - labels))
    return -values, true, false


def best_accuracy(similarity: Vector, labels: Vector) -> tuple[float, float]:
    """The largest share of pairs that one threshold can tell apart, and the threshold: from there on a pair counts as 1."""
    values, true, false = thresholds(similarity, labels)
    right = np.concatenate([[0.0], true - false]) + (1 - labels).sum()
    best = int(np.argmax(right))
    if best == 0:
        threshold = np.nextafter(values[0], np.inf)  # nothing is 1
    else:
        threshold = (values[best - 1] + values[best]) / 2 if best < len(values) else values[-1]
    return float(right[best] / len(labels)), float(threshold)


def average_precision(similarity: Vector, labels: Vector) -> float:
    """The mean of the precision at each threshold, weighted by what it adds to the recall."""
    _, true, false = thresholds(similarity, labels)
    return float((np.diff(true, prepend=0) * true / (true + false)).sum() / labels.sum())


def auc(similarity: Vector, labels: Vector) -> float:
    """Area under the ROC curve: how often a pair of label 1 is more similar than one of label 0 (Mann and Whitney 1947)."""
    ones = labels.sum()
    above = ranks(similarity)[labels == 1].sum() - ones * (ones + 1) / 2
    return float(above / (ones * (len(labels) - ones)))


# --- layer by layer


def parse_layers(asked: str, layers: int) -> list[int]:
    """ "all" or "6,7,8" -> layer numbers, ascending. Raises UserError."""
    if asked == "all":
        return list(range(layers + 1))
    parts = asked.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"layers must be all, or numbers such as 6,7,8, not {asked!r}")
    return sorted({between("a layer", int(part), 0, layers) for part in parts})


def evaluate_layers(
    encoder: Encoder, layers: Sequence[int], pairs: Pairs, *, normalize_embeddings: bool = False, **encode: Any
) -> Iterator[tuple[int, Scores]]:
    """The measures of each layer, from one pass through the model; from several where the vectors of all are too large."""
    sentences = distinct_texts(pairs)
    at_once = max(1, VECTORS // (len(sentences) * encoder.width))
    for first in range(0, len(layers), at_once):
        some = layers[first : first + at_once]
        with warnings.catch_warnings():
            if first:  # which texts are cut does not depend on the layer
                warnings.simplefilter("ignore", UserWarning)
            vectors = encoder.with_layers(some).encode(sentences, **encode)
        for layer, part in zip(some, np.split(vectors, len(some), axis=1), strict=True):
            part = part[:, : encoder.dimensions]
            yield layer, scores(l2_normalize.reference(part) if normalize_embeddings else part, sentences, pairs)
