"""Rows in a quarter of the memory, and how far they are from the exact ones: for a first look at a corpus larger than memory.

A row is int8 numbers times its own step. By Cauchy and Schwarz no dot product with a query is further off than the query's length
times the length of what rounding took away, which is kept for each row. So a scan of these rows finds every row that may be
among the k best, and the result is exact all the same.
"""

from typing import NamedTuple

import numpy as np

from ..graph.tensor import Array

INT8_STEPS = 127  # from 0 to the largest number of a row
FACTS_OF_ROW = np.dtype([("step", "<f4"), ("lost", "<f4")])
ROUNDED_UP = 1.0001  # the kept length is never too small


class CoarseRows(NamedTuple):
    """numbers: int8 (n, C). facts: FACTS_OF_ROW (n,): a row is numbers x step, and `lost` is the length of its difference."""

    numbers: Array
    facts: Array


def make_coarse(vectors: Array) -> CoarseRows:
    """The coarse form of finite rows (n, C)."""
    exact = np.asarray(vectors, np.float64)
    facts = np.zeros(len(exact), FACTS_OF_ROW)
    facts["step"] = np.abs(exact).max(axis=1, initial=0) / INT8_STEPS
    step = np.maximum(facts["step"].astype(np.float64), 1e-30)[:, None]
    numbers = np.clip(np.rint(exact / step), -INT8_STEPS, INT8_STEPS).astype(np.int8)
    lost = exact - numbers * facts["step"].astype(np.float64)[:, None]
    facts["lost"] = np.sqrt(np.einsum("nc,nc->n", lost, lost)) * ROUNDED_UP
    return CoarseRows(numbers, facts)
