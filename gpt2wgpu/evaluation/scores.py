"""How well a model's similarities agree with people's judgements of pairs of sentences.

The measures are those of sentence-transformers' EmbeddingSimilarityEvaluator and BinaryClassificationEvaluator, except that
pairs of equal similarity are never separated: a threshold lies between two different values, as in scikit-learn.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..encoder import Encoder
from ..errors import UserError, between
from ..files.pairs import Pairs
from ..graph.cores import ONE_THREAD_BLAS
from ..graph.ops import l2_normalize
from ..graph.ops.pooling import SIMILARITIES
from ..graph.tensor import Array
from ..vectors.measures import Vector, pearson_correlation
from ..vectors.pairwise import row_by_row

LAYER_NUMBERS = 1 << 28  # most numbers in the vectors of all layers that are encoded together: 1 GiB
Scores = dict[str, dict[str, float]]  # similarity -> measure -> value


def check_targets(pairs: Pairs) -> None:
    """Raises UserError if nothing can be measured with these pairs: no targets, all the same, or not finite."""
    if pairs.targets is None:
        raise UserError("the pairs have neither labels nor scores: there is nothing to compare similarities with")
    if not np.isfinite(pairs.targets).all():
        row = int(np.flatnonzero(~np.isfinite(pairs.targets))[0])
        raise UserError(f"the target of pair {row} is {pairs.targets[row]}, expected a finite number")
    if pairs.targets.min() == pairs.targets.max():
        raise UserError(f"all {len(pairs)} pairs have the same target: there is nothing to tell apart")


def evaluate_pairs(encoder: Encoder, pairs: Pairs, **encode: Any) -> Scores:
    """The measures for every similarity. Distances are negated, so that higher means closer.

    encode: keywords of `encoder.encode`. Raises UserError if the pairs cannot be used or a text cannot be encoded.
    """
    check_targets(pairs)
    sentences = distinct_sentences(pairs)
    return pair_scores(encoder.encode(sentences, **encode), sentences, pairs)


def distinct_sentences(pairs: Pairs) -> list[str]:
    """Each sentence once, in the order of its first use."""
    return [*dict.fromkeys([*pairs.sentences1, *pairs.sentences2])]


def pair_scores(vectors: Array, sentences: Sequence[str], pairs: Pairs) -> Scores:
    """The measures for every similarity, from the vectors (n, C) of the pairs' n distinct sentences."""
    assert pairs.targets is not None
    row = {text: i for i, text in enumerate(sentences)}
    a, b = (vectors[[row[text] for text in texts]] for texts in (pairs.sentences1, pairs.sentences2))
    return {name: pair_measures(row_by_row(a, b, name), pairs.targets, pairs.labelled) for name in SIMILARITIES}


def pair_measures(similarity: Array, targets: Vector, labelled: bool) -> dict[str, float]:
    """How similarities (n,) agree with targets (n,): Spearman's and Pearson's correlation. For labels 0 and 1 also accuracy
    at the best threshold, that threshold, average precision, and the area under the ROC curve."""
    similarity = similarity.astype(np.float64)
    with ONE_THREAD_BLAS:
        found = {
            "spearman": pearson_correlation(mean_ranks(similarity), mean_ranks(targets)),
            "pearson": pearson_correlation(similarity, targets),
        }
    if labelled:
        accuracy, threshold = best_accuracy(similarity, targets)
        found |= {"accuracy": accuracy, "threshold": threshold}
        found |= {"average_precision": average_precision(similarity, targets), "auc": roc_area(similarity, targets)}
    return found


def mean_ranks(values: Vector) -> Vector:
    """The rank of each value in ascending order, from 1. Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def count_above(similarity: Vector, labels: Vector) -> tuple[Vector, Vector, Vector]:
    """The different similarities, descending; and how many pairs of label 1, and of label 0, are at least as similar."""
    values, inverse = np.unique(-similarity, return_inverse=True)
    true, false = (np.cumsum(np.bincount(inverse, which)).astype(np.float64) for which in (labels, 1 - labels))
    return -values, true, false


def best_accuracy(similarity: Vector, labels: Vector) -> tuple[float, float]:
    """The largest share of pairs that one threshold classifies right, and the threshold: at or above it, a pair counts as 1."""
    values, true, false = count_above(similarity, labels)
    right = np.concatenate([[0.0], true - false]) + (1 - labels).sum()
    best = int(np.argmax(right))
    if best == 0:
        threshold = np.nextafter(values[0], np.inf)  # no pair counts as 1
    else:
        threshold = (values[best - 1] + values[best]) / 2 if best < len(values) else values[-1]
    return float(right[best] / len(labels)), float(threshold)


def average_precision(similarity: Vector, labels: Vector) -> float:
    """The mean of the precision at each threshold, weighted by the increase of the recall (scikit-learn's definition)."""
    _, true, false = count_above(similarity, labels)
    return float((np.diff(true, prepend=0) * true / (true + false)).sum() / labels.sum())


def roc_area(similarity: Vector, labels: Vector) -> float:
    """Area under the ROC curve: how often a pair of label 1 is more similar than one of label 0 (Mann & Whitney 1947)."""
    ones = labels.sum()
    above = mean_ranks(similarity)[labels == 1].sum() - ones * (ones + 1) / 2
    return float(above / (ones * (len(labels) - ones)))


# --- layer by layer


def parse_layers(asked: str, layers: int) -> list[int]:
    """ "all" or "6,7,8" -> layer numbers, ascending, each once. Raises UserError if one is not from 0 to `layers`."""
    if asked == "all":
        return list(range(layers + 1))
    parts = asked.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"layers must be all, or numbers such as 6,7,8, not {asked!r}")
    return sorted({between("a layer", int(part), 0, layers) for part in parts})


def evaluate_layers(
    encoder: Encoder, layers: Sequence[int], pairs: Pairs, *, normalize_embeddings: bool = False, **encode: Any
) -> Iterator[tuple[int, Scores]]:
    """The layers and their measures, from one pass through the model, or from several if the vectors of all layers are too
    large together. Options as for `evaluate_pairs`, and it raises what that raises."""
    check_targets(pairs)
    sentences = distinct_sentences(pairs)
    at_once = max(1, LAYER_NUMBERS // (len(sentences) * encoder.width))
    for first in range(0, len(layers), at_once):
        some = layers[first : first + at_once]
        with warnings.catch_warnings():
            if first:  # the same texts are cut in every layer
                warnings.simplefilter("ignore", UserWarning)
            vectors = encoder.with_layers(some).encode(sentences, **encode)
        for layer, part in zip(some, np.split(vectors, len(some), axis=1), strict=True):
            part = part[:, : encoder.dimensions]
            yield layer, pair_scores(l2_normalize.reference(part) if normalize_embeddings else part, sentences, pairs)
