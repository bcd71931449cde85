"""A map of texts: where each stands, which cluster it is in, which texts are nearest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..devices.choose import find_device
from ..errors import UserError
from ..graph.tensor import Array
from .density import density_clusters
from .device_forces import FEWEST_POINTS
from .layout import layout_distinct, layout_neighbors, principal_components
from .neighbors import Neighbors, distinct_rows, expand_neighbors, unit_vectors
from .topics import cluster_names, cluster_words

MAP_NEIGHBORS = 15  # of each text, in the files
MOST_NAMES = 1000  # different values of a column of words; of more, the most frequent ones


@dataclass(frozen=True, eq=False)
class MapColumn:
    """A colour for each text. values: numbers, float (n,); or, where there are names, the number of a name, -1 for none."""

    name: str
    values: Array
    names: list[str] | None = None
    unnamed: str = "none"

    @property
    def shown(self) -> list[str]:
        """The value of each text as a text."""
        if self.names is None:
            return ["" if np.isnan(v) else f"{v:g}" for v in self.values.tolist()]
        return [self.names[code] if code >= 0 else "" for code in self.values.tolist()]


@dataclass(frozen=True)
class TextMap:
    """n texts on a map.

    layouts: by name, float32 (n, 2) or (n, 3); the first one is shown first. columns: what points can be coloured by; the first
    is the cluster. neighbors: the nearest other texts of each.
    """

    title: str
    texts: list[str]
    layouts: Mapping[str, Array]
    columns: list[MapColumn]
    neighbors: Neighbors


def map_texts(
    texts: Sequence[str],
    vectors: Any,
    columns: Mapping[str, Sequence[Any]] | None = None,
    *,
    title: str = "Map of texts",
    seed: int = 0,
    three: bool = True,
    device: object = "numpy",
    progress: Callable[[str, int, int], None] | None = None,
) -> TextMap:
    """Lay out texts by their vectors (n, C) in 2 and 3 dimensions, find and name clusters and nearest texts.

    columns: more values for each text, by name: numbers or words; None where there is none. three: also the layout in 3
    dimensions by neighbours, the slowest part. progress: called with what is computed, steps done, and of how many.
    device: as for `Encoder`; a GPU lays out 3,000 points and more, up to 200,000 (an integrated one 50,000).
    The same texts and vectors give the same map on one device.
    Raises UserError for vectors that are not finite, or not one for each text.
    """
    unit = unit_vectors(vectors)
    if len(unit) != len(texts):
        raise UserError(f"a map needs a vector for each text, got {len(unit):,} vectors for {len(texts):,} texts")
    if not len(texts):
        raise UserError("there are no texts to map")

    def report(what: str) -> Callable[[int, int], None]:
        return lambda done, of: progress(what, done, of) if progress else None

    distinct = distinct_rows(unit)
    near = layout_neighbors(distinct)
    place = find_device(device)[0] if len(distinct.unit) >= FEWEST_POINTS else None
    layouts = {"t-SNE 2-D": layout_distinct(distinct, near, 2, seed, report("2-D layout"), place)}
    if three:
        layouts["t-SNE 3-D"] = layout_distinct(distinct, near, 3, seed, report("3-D layout"), place)
    layouts["PCA 2-D"] = principal_components(unit, 2)
    layouts["PCA 3-D"] = principal_components(unit, 3)
    clusters = density_clusters(layouts["t-SNE 2-D"])
    names = cluster_names(cluster_words(texts, clusters))
    found = [MapColumn("cluster", clusters, names, "no cluster")]
    found += [map_column(name, values, len(texts)) for name, values in (columns or {}).items()]
    return TextMap(title, [*texts], layouts, found, expand_neighbors(near, distinct.place, min(MAP_NEIGHBORS, len(texts) - 1)))


def show_first(made: TextMap, name: str | None) -> TextMap:
    """The same map, first coloured by the column of this name; None leaves it as it is."""
    first = [c for c in made.columns if c.name == name][:1]
    return replace(made, columns=[*first, *(c for c in made.columns if c not in first)])


def map_column(name: str, values: Sequence[Any], n: int) -> MapColumn:
    """A column of numbers if all of its values are numbers of which there are many, else one of words."""
    if len(values) != n:
        raise UserError(f"column {name!r} has {len(values):,} values for {n:,} texts")
    numbers = read_numbers(values)
    if numbers is not None and (len(np.unique(numbers[~np.isnan(numbers)])) > 12 or np.any(numbers % 1 > 0)):
        return MapColumn(name, numbers)
    words = ["" if v is None else str(v) for v in values]
    kinds, where, counts = np.unique(np.array(words, object).astype("U"), return_inverse=True, return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable") if kinds[i] != ""][:MOST_NAMES]
    code = np.full(len(kinds), -1, np.int64)
    code[order] = np.arange(len(order))
    return MapColumn(name, code[where.ravel()], [str(kinds[i]) for i in order], "other" if len(kinds) > MOST_NAMES else "none")


def read_numbers(values: Sequence[Any]) -> Array | None:
    """Numbers, or texts that read as such, float64 (n,), NaN where none is finite; None if a value is no number."""
    found = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None or value == "":
            continue
        if isinstance(value, bool):
            return None
        try:
            found[i] = float(value)
        except (TypeError, ValueError):
            return None
    found[~np.isfinite(found)] = np.nan  # a scale of colours has no place for infinity
    return found if np.isfinite(found).any() else None
