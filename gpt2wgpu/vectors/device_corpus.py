"""A corpus that stays on a device, and the k best of its rows for queries that come later.

The device returns a few best rows of each segment of 512, not all scores. They and their error bounds are merged as blocks are in
numpy, with the same exact scores: the result is that of `top_k`, bit for bit. A segment that may hold more of the k best than it
returned is computed again in numpy.
"""

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError, between
from ..graph import ops
from ..graph.ops.nearest_rows import SEGMENT
from ..graph.tensor import Array, Tensor, schedule
from .top_k import Best, Candidates, corpus_blocks, normalize_rows, refuse_not_finite, rounding_error

if TYPE_CHECKING:
    from ..gpu import Device

KEPT_AT_LEAST = 16  # rows that each segment returns; with more, fewer segments are computed again
MOST_QUERIES = 128  # computed together, a multiple of gpu/upload.py's TILE
COPIED_ROWS = 1 << 15  # looked at together
LENGTHS_OFF = 1e-6  # of rows that are taken to have length 1


class DeviceCorpus:
    """Rows (n, C) on a device, in float32. ids: what to call them; by default their numbers.

    vectors: stays on the host too, and may be memory-mapped: the candidates' exact scores are computed from it. cosine: whether
    rows are scaled to length 1. k: what searches ask for as a rule; it decides how many rows each segment returns. The caller
    makes sure that one thread at a time uses the device. Raises UserError if a row is not finite, or the device has no room;
    GPUError.
    """

    def __init__(self, device: "Device", vectors: Array, *, cosine: bool, ids: Array | None = None, k: int = 100) -> None:
        from ..devices.graph_check import check_graph
        from ..gpu import GPUProgram
        from ..gpu.buffers import PADDING

        self.vectors, self.cosine = vectors, cosine
        self.ids = np.arange(len(vectors)) if ids is None else np.asarray(ids, np.int64)
        self.width = int(vectors.shape[1])
        self.keep = min(SEGMENT, k, 4 * k * SEGMENT // max(1, len(self.ids))) + KEPT_AT_LEAST
        self.keep = min(SEGMENT, self.keep)
        self.longest = 1.0  # length of a row
        self.programs: list[tuple[slice, GPUProgram]] = []
        padded = 4 * ceil(self.width / 4)
        binding = device.adapter.limit - PADDING
        segments = min(
            binding // (4 * padded * SEGMENT),  # of rows
            binding // (4 * 2 * self.keep * MOST_QUERIES),  # of what is returned
            device.adapter.limits["max-compute-workgroups-per-dimension"],
        )
        rows = SEGMENT * max(1, segments)
        try:
            for part in corpus_blocks(len(self.ids), rows):
                block = self._prepare_rows(part, padded)
                a, b = Tensor(("M", padded), name="queries"), Tensor(block.shape, name="rows")
                output = ops.nearest_rows(a, b, keep=self.keep)
                check_graph(device, schedule(output))
                self.programs.append((part, GPUProgram(device, output, {b: block}.__getitem__, {"M": MOST_QUERIES})))
        except BaseException:
            self.close()
            raise

    def _prepare_rows(self, part: slice, padded: int) -> Array:
        """Rows as the device gets them: float32, of length 1 if cosines are asked for, with zeros after the last column."""
        found = np.zeros((part.stop - part.start, padded), np.float32)
        for rows in corpus_blocks(len(found), COPIED_ROWS):
            block = np.asarray(self.vectors[self.ids[part][rows]], np.float32)
            if self.cosine:
                block = normalize_rows(block)
            lengths = np.sqrt(np.einsum("nc,nc->n", block, block, dtype=np.float64))
            if not np.isfinite(lengths).all():
                raise UserError(
                    f"vector {self.ids[part][rows][np.argmin(np.isfinite(lengths))]} holds NaN, Inf or too large numbers"
                )
            self.longest = max(self.longest, float(lengths.max(initial=0)))
            found[rows, : self.width] = block
        return found

    def top_k(self, queries: Array, k: int) -> Best:
        """The k best rows for each query (m, C); all if there are fewer. Raises UserError for a query that is not finite."""
        k = min(between("k", k, 1, 1 << 40), len(self.ids))
        if self.cosine:
            queries = normalize_rows(queries.astype(np.float64)).astype(np.float32)
        queries = np.ascontiguousarray(queries, np.float32)
        found = [self._search(queries[part], k, part.start) for part in corpus_blocks(len(queries), MOST_QUERIES)]
        empty = Best(np.empty((0, k), np.float32), np.empty((0, k), np.int64))
        return Best(*(np.concatenate(parts) for parts in zip(empty, *found, strict=True)))

    def _search(self, queries: Array, k: int, first: int) -> Best:
        if not k:
            return Best(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        scores, places = self._run(queries)
        refuse_not_finite(np.einsum("mc->m", queries)[:, None], 0, first)
        refuse_not_finite(scores.reshape(len(queries), -1), 0, first)
        lengths = np.sqrt(np.einsum("mc,mc->m", queries, queries, dtype=np.float64))
        off = (rounding_error(self.width) + LENGTHS_OFF) * lengths * self.longest
        pool = Candidates(len(queries), k)
        there = places < len(self.ids)
        pool.note(np.where(there, scores, -np.inf).reshape(len(queries), -1), off)
        full = there.all(axis=(0, 2))  # segments that may hold more than they returned
        again = full & (scores[:, :, -1] >= (pool.bound - off)[:, None]).any(axis=0)
        keep = there & ~again[:, None]
        which = np.nonzero(keep)
        pool.add_listed(which[0], places[which], scores[which], off)
        for segment in np.flatnonzero(again):
            rows = self.segment_rows[segment]
            block = np.asarray(self.vectors[self.ids[rows]], np.float32)
            with np.errstate(all="ignore"):
                pool.add(queries @ (normalize_rows(block) if self.cosine else block).T, rows.start, off)
        pool.rescore(queries, self.vectors, cosine=self.cosine, ids=self.ids)
        return pool.best()

    def _run(self, queries: Array) -> tuple[Array, Array]:
        """Scores and row numbers of what each segment returns, (m, segments, keep); a number beyond the last row: none."""
        given = np.zeros((len(queries), 4 * ceil(self.width / 4)), np.float32)
        given[:, : self.width] = queries
        waiting = [(rows, program.submit({"queries": given})) for rows, program in self.programs]
        scores, places = [], []
        self.segment_rows: list[slice] = []
        for rows, wait in waiting:
            found = wait().reshape(len(queries), 2, -1, self.keep)
            starts = np.arange(rows.start, rows.stop, SEGMENT)
            self.segment_rows += [slice(int(s), int(min(s + SEGMENT, rows.stop))) for s in starts]
            inside = found[:, 1] < 1
            place = np.where(inside, found[:, 1] * SEGMENT, 0).astype(np.int64) + starts[:, None]
            scores.append(found[:, 0])
            places.append(np.where(inside, place, len(self.ids)))
        return np.concatenate(scores, axis=1), np.concatenate(places, axis=1)

    def close(self) -> None:
        """Free the device's memory."""
        for _, program in self.programs:
            program.close()
        self.programs = []
