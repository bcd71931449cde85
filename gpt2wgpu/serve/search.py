"""POST /search: the passages of an index that answer a question. The index's vectors stay on the device, if there is one."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from prometheus_client import Gauge, Histogram
from starlette.requests import Request
from starlette.responses import Response

from ..encoder import Encoder
from ..errors import UserError, utf8_name
from ..graph.tensor import Array
from ..search.query import SEARCH_MODES, Hit, search_index
from ..search.reader import Index, open_index
from ..search.store import INDEX_STATE
from ..search.update import index_fingerprint
from ..vectors.device_corpus import DeviceCorpus
from .answers import json_response
from .context import Context, answer_headers
from .failures import EMPTY, OVERLOADED, UNAVAILABLE, VALIDATION, Refusal, is_device_lost
from .fields import read_body, read_timeout
from .metrics import SECOND_BUCKETS, Metrics
from .notices import say
from .service import VectorRequest

if TYPE_CHECKING:
    from ..gpu import Device

MOST_HITS = 1000  # of a request


class SearchRequest(msgspec.Struct):
    """The fields of /search."""

    query: str | None = None
    k: int | None = None
    mode: str | None = None
    min_score: float | None = None
    truncate: bool | None = None


class IndexSearch:
    """An index that is searched for many requests, one after the other, on a thread of its own.

    On a device it opens the adapter a second time, so that neither searches wait for batches of the model, nor these for the
    vectors of a new index on their way to the device. When another process brings the index up to date, the next search opens it
    again, and so it does where the device was lost. most: requests that may wait.
    """

    def __init__(self, encoder: Encoder, folder: Path, metrics: Metrics, *, most: int) -> None:
        """Raises UserError if there is no index, or if it was made with another model or prompt."""
        self.encoder, self.folder, self.most = encoder, folder, most
        self.waiting = 0
        self.corpus: DeviceCorpus | None = None
        self._open_device()
        self._open()
        self.thread = ThreadPoolExecutor(1, "gpt2wgpu search")
        self.seconds = Histogram(
            "gpt2wgpu_search_seconds",
            "from the vector of a query to its passages",
            buckets=SECOND_BUCKETS,
            registry=metrics.registry,
        )
        passages = Gauge("gpt2wgpu_search_passages", "in the index", registry=metrics.registry)
        passages.set_function(lambda: float(self.passages))

    def _open_device(self) -> None:
        self.device: Device | None = None
        if (model_device := self.encoder.engine.place.device) is not None:
            from ..gpu import open_device

            self.device = open_device(model_device.adapter)

    def _open(self) -> None:
        """Open the index as it is now, and copy its vectors to the device."""
        stamp = self._stamp()
        index = open_index(self.folder)
        index_fingerprint(self.encoder, index.state)
        allowed = index.allowed()
        corpus = None
        if self.device is not None:
            corpus = DeviceCorpus(self.device, index.vectors, cosine=False, ids=np.flatnonzero(allowed))
        if self.corpus is not None:
            self.corpus.close()
        self.index: Index = index
        self.corpus, self.stamp, self.passages = corpus, stamp, int(np.count_nonzero(allowed))

    def _stamp(self) -> tuple[int, int]:
        """Changes whenever the index does."""
        try:
            stat = (self.folder / INDEX_STATE).stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_ino

    def search(self, query: str, vector: Array | None, k: int, mode: str) -> list[Hit]:
        """On the search thread."""
        try:
            return self._search(query, vector, k, mode)
        except UserError as error:
            if not is_device_lost(error):
                raise
            say(f"/search: {error.args[0].partition(';')[0]}: opening it again")
        self._open_device()
        self._open()
        return self._search(query, vector, k, mode)

    def _search(self, query: str, vector: Array | None, k: int, mode: str) -> list[Hit]:
        if self._stamp() != self.stamp:
            self._open()
        begin = time.monotonic()
        found = search_index(self.index, query, vector, k, mode, find=self.corpus.top_k if self.corpus else None)
        self.seconds.observe(time.monotonic() - begin)
        return found

    async def find(self, query: str, vector: Array | None, k: int, mode: str, timeout: float | None) -> list[Hit]:
        """Wait for the thread. Raises Refusal if too many wait, if it takes too long, or if the index cannot be used any more."""
        if self.waiting >= self.most:
            raise Refusal(OVERLOADED, f"{self.waiting} searches wait: try again in 1 s", retry_after=1.0)
        self.waiting += 1
        try:
            call: Callable[[], list[Hit]] = lambda: self.search(query, vector, k, mode)  # noqa: E731
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self.thread, call), timeout)
        except TimeoutError:
            raise Refusal(UNAVAILABLE, f"not found in {timeout} s: try again later", retry_after=1.0) from None
        except (UserError, OSError) as error:
            raise Refusal(UNAVAILABLE, str(error)) from None
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """End the thread and free the device's memory."""
        self.thread.shutdown(wait=True, cancel_futures=True)
        if self.corpus is not None:
            self.corpus.close()


async def search_route(_: Request, body: bytes, context: Context) -> Response:
    """POST /search: the best passages of the server's index."""
    search = context.server.search
    given = read_body(body, SearchRequest)
    if search is None:
        raise Refusal(VALIDATION, "this server has no index: start it with --index FOLDER")
    if given.query is None or not given.query.strip():
        raise Refusal(EMPTY, "query is missing: give a text", param="query")
    mode, k = given.mode or SEARCH_MODES[0], 10 if given.k is None else given.k
    if mode not in SEARCH_MODES:
        raise Refusal(VALIDATION, f"mode is {mode!r}, known are {', '.join(SEARCH_MODES)}", param="mode")
    if not 1 <= k <= MOST_HITS:
        raise Refusal(VALIDATION, f"k is {k}, expected 1 to {MOST_HITS}", param="k")
    timeout = read_timeout(context.timeout)
    vector: Array | None = None
    headers: dict[str, str] = {}
    if mode != "lexical":
        found = await context.find(VectorRequest([given.query], role="query", truncate=given.truncate))
        vector, headers = found.vectors[0], answer_headers(found)
    left = None if timeout is None else max(0.001, timeout - (time.monotonic() - context.begin))
    hits = await search.find(given.query, vector, k, mode, left)
    hits = [hit for hit in hits if given.min_score is None or hit.score >= given.min_score]
    return json_response({"mode": mode, "passages": search.passages, "hits": [describe_found(hit) for hit in hits]}, 200, headers)


def describe_found(hit: Hit) -> dict[str, Any]:
    """A hit under the names that `gpt2wgpu search --json` uses; files are named in full."""
    found = asdict(hit)
    found["line"], found["last_line"] = found.pop("first"), found.pop("last")
    found["path"] = utf8_name(hit.path)
    found["text"] = hit.text.encode("utf-8", "replace").decode()
    return found
