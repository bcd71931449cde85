"""Groups of texts of one theme, with a name for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, between
from ..graph.tensor import Array
from ..vectors.mining import community_detection
from .layout import principal_components
from .neighbors import unit_vectors
from .topics import central_texts, cluster_names, cluster_words

CLUSTER_METHODS = ("communities", "hdbscan", "kmeans")
MOST_SEEDS = (1 << 32) - 1  # scikit-learn takes no larger one
HDBSCAN_DIMENSIONS = 15  # in more, everything is about equally far from everything, and most texts would be left out


@dataclass(frozen=True)
class Clusters:
    """numbers: of each text's cluster, int64 (n,), the largest cluster is 0, and -1 is none. names, words, central: of each
    cluster: a name, the words that set it apart, and the rows nearest to its mean."""

    numbers: Array
    names: list[str]
    words: list[list[str]]
    central: list[list[int]]


def cluster_texts(
    texts: Sequence[str],
    vectors: Any,
    method: str = "communities",
    *,
    threshold: float = 0.75,
    min_size: int = 5,
    clusters: int | None = None,
    seed: int = 0,
) -> Clusters:
    """Cluster texts by their vectors (n, C), compared by cosine.

    method: "communities": groups around a text with which all others have a cosine of at least `threshold`, by
    `community_detection`. "hdbscan": HDBSCAN on the first 15 principal components. "kmeans": `clusters` groups of least
    variance, of which every text is in one. The last two are scikit-learn's and need the extra `analyze`. min_size: of a
    cluster (not of "kmeans"). Raises UserError.
    """
    unit = unit_vectors(vectors)
    if len(unit) != len(texts):
        raise UserError(f"clusters need a vector for each text, got {len(unit):,} vectors for {len(texts):,} texts")
    between("min_size", min_size, 1 if method == "communities" else 2, 1 << 40)
    if method == "communities":
        if not -1 <= threshold <= 1:
            raise UserError(f"threshold must be a cosine, from -1 to 1, not {threshold!r}")
        numbers = np.full(len(unit), -1, np.int64)
        for i, members in enumerate(community_detection(unit, threshold, min_size) if len(unit) else []):
            numbers[members] = i
    elif method == "hdbscan":
        numbers = run_hdbscan(unit, min_size)
    elif method == "kmeans":
        numbers = run_kmeans(unit, between("clusters", clusters or 0, 1, max(1, len(unit))), between("seed", seed, 0, MOST_SEEDS))
    else:
        raise UserError(f"method must be one of {', '.join(CLUSTER_METHODS)}, not {method!r}")
    numbers = number_by_size(numbers)
    words = cluster_words(texts, numbers)
    return Clusters(numbers, cluster_names(words), words, central_texts(unit, numbers))


def number_by_size(numbers: Array) -> Array:
    """The same clusters, the largest one as 0; of equally large ones the one whose first text comes first. -1 stays."""
    kinds, first, where, sizes = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    order = [i for i in np.lexsort((first, -sizes)) if kinds[i] >= 0]
    rank = np.full(len(kinds), -1, np.int64)
    rank[order] = np.arange(len(order))
    return rank[where.ravel()]


def import_sklearn(what: str) -> None:
    """Raises UserError if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UserError(
            f"{what} needs scikit-learn, which is not installed: pip install scikit-learn (the extra `analyze`)"
        ) from None


def run_hdbscan(unit: Array, min_size: int) -> Array:
    import_sklearn("hdbscan")
    from sklearn.cluster import HDBSCAN

    if len(unit) < max(3, min_size):
        return np.full(len(unit), -1, np.int64)
    components = principal_components(unit, min(HDBSCAN_DIMENSIONS, unit.shape[1]))
    return HDBSCAN(min_cluster_size=min_size, min_samples=min(min_size, 5), copy=True).fit_predict(components).astype(np.int64)


def run_kmeans(unit: Array, clusters: int, seed: int) -> Array:
    import_sklearn("kmeans")
    from sklearn.cluster import KMeans

    distinct = len(np.unique(unit, axis=0))
    found = KMeans(min(clusters, distinct), n_init=10, random_state=seed).fit_predict(unit)
    return np.asarray(found, np.int64)
