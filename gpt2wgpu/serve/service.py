"""What every dialect asks for: texts in, vectors out, with admission, prompts and limits the same for all."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoint.prompts import find_prompt, first_prompt
from ..encoder import Encoder
from ..engine import EncodeOptions
from ..errors import UserError
from ..files.windows import take_window
from ..graph import ops
from ..graph.cores import usable_cores
from ..graph.tensor import Array
from .failures import EMPTY, OVERLOADED, TOO_LARGE, UNAVAILABLE, VALIDATION, Refusal
from .jobs import QueuedTexts, plan_like_encode
from .scheduler import Finished, Scheduler

TOKENIZED_TOGETHER = 256  # texts; between them other requests have their turn
TextOrIds = str | list[int]  # a list: token ids of this model

QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")
# What other APIs call the two sides of a search, and their other tasks: the prompts to look for, the first that the model has.
ROLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("query", "search_query", "retrieval.query"), QUERY),
    **dict.fromkeys(("document", "passage", "search_document", "retrieval.passage"), DOCUMENT),
    "classification": ("classification",),
    "clustering": ("clustering",),
    "separation": ("clustering",),
    "text-matching": (),
}


@dataclass(frozen=True)
class Limits:
    """What the server takes at a time."""

    body_bytes: int = 16 << 20  # of a request
    waiting_bytes: int = 128 << 20  # of all requests together
    requests: int = 512  # that wait or are computed
    texts: int = 1 << 16  # in a request
    waiting_batches: int = 64  # full batches of tokens that may wait
    queue_seconds: float = 60.0  # that a request may wait for its first batch


@dataclass
class VectorRequest:
    """What a request asks for, whatever its dialect. None means that it did not say."""

    texts: Sequence[TextOrIds]
    prompt_name: str | None = None
    role: str | None = None  # a key of ROLES
    truncate: bool | None = None
    normalize: bool = True
    dimensions: int | None = None
    states: bool = False  # the hidden states of the tokens, not vectors
    timeout: float | None = None  # seconds


@dataclass
class Found:
    """vectors: float32 (n, dims), or for each text the states of its tokens. cut: how many texts were cut. Times in seconds."""

    vectors: Any
    tokens: int
    cut: int
    prompt: str  # the name of the prompt in use; "" if none was put before the texts
    characters: int = 0
    tokenized: float = 0.0
    queued: float = 0.0
    computed: float = 0.0


class Service:
    """An Encoder behind a queue. Its coroutines run on the event loop that serves.

    auto_truncate: whether texts that are too long are cut where a request does not say.
    """

    def __init__(
        self, encoder: Encoder, limits: Limits, *, name: str, auto_truncate: bool = True, on_batch: Callable[[Finished], None]
    ) -> None:
        self.encoder, self.limits, self.name, self.auto_truncate = encoder, limits, name, auto_truncate
        self.started = time.time()
        self.draining = False
        self.warm = False
        self.requests = self.bytes = 0
        self.ended = asyncio.Event()  # set if the device cannot be used any more
        self._loop: asyncio.AbstractEventLoop | None = None
        self.token_threads = usable_cores()
        self._threads = ThreadPoolExecutor(self.token_threads, "gpt2wgpu tokens")
        room = limits.waiting_batches * encoder.engine.max_tokens
        self.scheduler = Scheduler(encoder, room=room, on_batch=on_batch, on_fatal=self._end)

    def _end(self, why: str) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.ended.set)

    async def warm_up(self) -> None:
        """Compute one text, so that readiness means that something was computed."""
        self._loop = asyncio.get_running_loop()
        await self.find_vectors(VectorRequest(["warm"], truncate=True))
        self.warm = True

    def why_unready(self) -> str | None:
        """Why the server should get no requests, or None."""
        if self.draining:
            return "draining"
        return self.scheduler.fatal or self.scheduler.overdue() or (None if self.warm else "starting")

    def why_dead(self) -> str | None:
        """Why the process should be restarted, or None. Takes no lock."""
        return self.scheduler.fatal or self.scheduler.overdue()

    def take_bytes(self, count: int) -> None:
        """Note bytes of a request's body. Raises Refusal if all bodies together have too many."""
        if self.bytes + count > self.limits.waiting_bytes:
            raise Refusal(OVERLOADED, "requests with too many bytes wait: try again later", retry_after=1.0)
        self.bytes += count

    async def find_vectors(self, asked: VectorRequest) -> Found:
        """Tokenise, wait in the queue, compute. Raises Refusal; a cancelled call computes no more."""
        if self.requests >= self.limits.requests:
            seconds = self.scheduler.seconds_to_wait(0)
            raise Refusal(OVERLOADED, f"{self.requests} requests wait: try again in {seconds:.1f} s", retry_after=seconds)
        self.requests += 1
        try:
            return await self._compute(asked)
        except UserError as error:
            raise Refusal(VALIDATION, str(error)) from None
        finally:
            self.requests -= 1

    async def _compute(self, asked: VectorRequest) -> Found:
        if not asked.texts:
            raise Refusal(EMPTY, "the request holds no texts")
        if len(asked.texts) > self.limits.texts:
            wrong = f"{len(asked.texts)} texts in a request, at most {self.limits.texts} are taken"
            raise Refusal(TOO_LARGE, f"{wrong}: send them in parts")
        options, prompt = self._options(asked)
        begin = time.monotonic()
        sequences, cut = await self._tokenize(asked, options)
        tokenized = time.monotonic() - begin
        vectors = None if asked.states else np.empty((len(sequences), self.encoder.engine.width), np.float32)
        jobs = [*self._split(asked, sequences, options, vectors)]
        self.scheduler.submit(jobs)
        results = await self._wait(jobs, asked.timeout)
        found = Found(None, sum(map(len, sequences)), cut, prompt, tokenized=tokenized)
        found.characters = sum(len(t) for t in asked.texts if isinstance(t, str))
        found.queued = jobs[0].first_submitted - jobs[0].started
        found.computed = max(job.finished for job in jobs) - jobs[0].first_submitted
        if vectors is None:
            found.vectors = [states for result in results for states in result]
            return found
        found.vectors = np.ascontiguousarray(vectors[:, : options.dims])
        if options.normalize:
            for job in jobs:  # in place: many texts need no second array
                window = found.vectors[job.first :][: len(job.sequences)]
                window[:] = ops.l2_normalize.reference(window)
        return found

    def _split(
        self, asked: VectorRequest, sequences: list[Array], options: EncodeOptions, vectors: Array | None
    ) -> Iterator[QueuedTexts]:
        """A job for each window that `Encoder.encode` would cut from the texts: in numpy a vector's last bits depend on it."""
        engine = self.encoder.engine
        plan = None if self.scheduler.mixes else plan_like_encode(engine.budget(), options.sequences)
        texts: Iterator[Any] = iter(asked.texts)
        first = 0
        while window := take_window(texts):
            own = slice(first, first + len(window))
            results = None if vectors is None else vectors[own]
            yield QueuedTexts(sequences[own], first=first, skip=options.skip, vectors=results, plan=plan)
            first += len(window)

    async def _wait(self, jobs: Sequence[QueuedTexts], timeout: float | None) -> list[Any]:
        """The jobs' results. Raises Refusal if the first batch did not begin in time, or if the whole took too long."""
        futures = [asyncio.wrap_future(job.future) for job in jobs]
        begin = time.monotonic()
        deadline = begin + (timeout or math.inf)
        try:
            while True:
                waits = math.isnan(jobs[0].first_submitted)
                until = min(deadline, begin + self.limits.queue_seconds) if waits else deadline
                left = None if math.isinf(until) else max(0.0, until - time.monotonic())
                _, others = await asyncio.wait(futures, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
                if not others or any(future.done() and future.exception() for future in futures):
                    return [future.result() for future in futures if future.done()]
                if time.monotonic() >= deadline or math.isnan(jobs[0].first_submitted):
                    retry = self.scheduler.seconds_to_wait(0)
                    seconds = time.monotonic() - begin
                    raise Refusal(UNAVAILABLE, f"not computed in {seconds:.1f} s: try again later", retry_after=retry)
        finally:
            self.scheduler.cancel(jobs)
            for future in futures:  # what is not read would be logged as never retrieved
                future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def check_prompt_name(self, name: str | None) -> None:
        """Raises Refusal for a name that the model does not have. Encoder's words for it advise what a request cannot do."""
        if name and name not in self.encoder.prompts:
            known = ", ".join(self.encoder.prompts) or "none"
            found = f"prompt_name {name!r} is not among the model's prompts ({known})"
            raise Refusal(VALIDATION, f"{found}: leave it out, or put the prompt before each text", param="prompt_name")

    def _options(self, asked: VectorRequest) -> tuple[EncodeOptions, str]:
        """The options of `Encoder.encode` that say the same, and the name of the prompt."""
        prompts = self.encoder.prompts
        name: str | None = asked.prompt_name
        self.check_prompt_name(name)
        prompt: str | None = None
        if name is None and asked.role is not None:
            name = next((n for n in ROLES[asked.role] if n in prompts), None)
            prompt = first_prompt(prompts, *ROLES[asked.role])
        if prompt is None:
            prompt = find_prompt(prompts, None, name, self.encoder.default_prompt_name)
        options = self.encoder.options(
            prompt=prompt,
            truncate_dim=self._check_dimensions(asked.dimensions),
            normalize_embeddings=asked.normalize,
            truncate=self.auto_truncate if asked.truncate is None else asked.truncate,
        )
        return options, (name or self.encoder.default_prompt_name or "") if options.prompt else ""

    def _check_dimensions(self, asked: int | None) -> int | None:
        width = self.encoder.engine.width
        if asked is not None and not 1 <= asked <= width:
            raise Refusal(VALIDATION, f"dimensions is {asked}, this model has 1 to {width}", param="dimensions")
        return asked

    async def _tokenize(self, asked: VectorRequest, options: EncodeOptions) -> tuple[list[Array], int]:
        """The token ids of each text, and how many texts were cut. Raises Refusal if one is too long and must not be cut."""
        sequences: list[Array] = []
        cut = 0
        for first in range(0, len(asked.texts), TOKENIZED_TOGETHER):
            part = asked.texts[first : first + TOKENIZED_TOGETHER]
            ids, counts = await self.on_thread(self._tokenize_part, part, options, first)
            too_long = [i for i, n in enumerate(counts) if n > options.limit]
            if too_long and not options.truncate:
                i = too_long[0]
                found = f"text {first + i} has at least {counts[i]} tokens, this model reads {options.limit}"
                raise Refusal(VALIDATION, f"{found}: shorten it, or let it be cut with truncate=true")
            sequences += ids
            cut += len(too_long)
        longest = self.encoder.engine.longest_text
        for i, ids_of_one in enumerate(sequences):
            if len(ids_of_one) > longest:
                raise Refusal(VALIDATION, f"text {i} has {len(ids_of_one)} tokens, this server computes {longest}")
        return sequences, cut

    async def on_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `work` on a thread that tokenises: other requests have their turn meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _tokenize_part(self, part: Sequence[TextOrIds], options: EncodeOptions, first: int) -> tuple[list[Array], list[int]]:
        if all(isinstance(text, str) for text in part):
            return self.encoder.tokenizer.encode([options.prompt + str(text) for text in part], options.limit, first)
        vocab = self.encoder.checkpoint.config.vocab
        found, counts = [], []
        for i, ids in enumerate(part, first):
            if not ids or not all(isinstance(n, int) and 0 <= n < vocab for n in ids):
                raise UserError(f"text {i}: token ids of this model are whole numbers from 0 to {vocab - 1}, one at least")
            counts.append(len(ids))
            found.append(np.array(ids[: options.limit], np.uint32))
        return found, counts

    def close(self) -> None:
        """End the threads and free the device."""
        self.scheduler.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.encoder.close()
