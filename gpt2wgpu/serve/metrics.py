"""What the server counts, for Prometheus: under TEI's names where the meaning is the same, as autoscalers read them."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import failures
from .scheduler import Finished
from .service import Found, Service

METHODS = ("single", "batch")  # of TEI: one text, or several
FAILURES = {  # TEI's reasons
    failures.MALFORMED: "validation",
    failures.EMPTY: "validation",
    failures.VALIDATION: "validation",
    failures.TOO_LARGE: "batch_size",
    failures.UNKNOWN_MODEL: "validation",
    failures.WRONG_MODEL: "model_type",
    failures.UNAUTHORIZED: "validation",
    failures.FORBIDDEN: "validation",
    failures.OVERLOADED: "overloaded",
    failures.UNAVAILABLE: "overloaded",
    failures.BACKEND: "inference",
}
DROPPED = "dropped"  # the caller left
SECOND_BUCKETS = tuple(15e-6 * 1.5**i for i in range(35))
LENGTH_BUCKETS = tuple(2.0**i for i in range(20))
SIZE_BUCKETS = tuple(2.0**i for i in range(13))
TOKEN_BUCKETS = tuple(2.0**i for i in range(21))


class TEICounters(Collector):
    """Counters whose names do not end in _total, which prometheus_client would add."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(METHODS, 0)
        self.successes = dict.fromkeys(METHODS, 0)
        self.failed = dict.fromkeys((*FAILURES.values(), DROPPED), 0)
        self.texts = self.text_successes = 0

    def collect(self) -> Iterator[Metric]:
        labelled = {
            "te_request_count": ("requests that arrived", "method", self.requests),
            "te_request_success": ("requests that were answered", "method", self.successes),
            "te_request_failure": ("requests that failed", "err", self.failed),
        }
        for name, (meaning, label, values) in labelled.items():
            metric = Metric(name, meaning, "unknown")
            for value, count in values.items():
                metric.add_sample(name, {label: value}, count)
            yield metric
        for name, meaning, count in (
            ("te_embed_count", "texts that arrived", self.texts),
            ("te_embed_success", "texts that were embedded", self.text_successes),
        ):
            metric = Metric(name, meaning, "unknown")
            metric.add_sample(name, {}, count)
            yield metric


class Metrics:
    """All of a server's figures; every series exists before the first request."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tei = TEICounters()
        self.registry.register(self.tei)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, buckets=buckets, registry=self.registry)

        self.duration = histogram("te_request_duration", "seconds of a request", SECOND_BUCKETS)
        self.tokenization = histogram("te_request_tokenization_duration", "seconds of tokenising", SECOND_BUCKETS)
        self.queue = histogram("te_request_queue_duration", "seconds until the first batch", SECOND_BUCKETS)
        self.inference = histogram("te_request_inference_duration", "seconds from the first batch to the last", SECOND_BUCKETS)
        self.lengths = histogram("te_request_input_length", "tokens of a request", LENGTH_BUCKETS)
        self.batch_sizes = histogram("te_batch_next_size", "texts in a batch", SIZE_BUCKETS)
        self.batch_tokens = histogram("te_batch_next_tokens", "tokens in a batch", TOKEN_BUCKETS)
        self.batch_seconds = histogram("gpt2wgpu_batch_seconds", "from the start of a batch to its result", SECOND_BUCKETS)
        self.request_seconds = histogram(
            "gpt2wgpu_request_seconds", "from the first byte of a request to its answer", SECOND_BUCKETS
        )
        self.cut = Counter("gpt2wgpu_cut_texts", "texts that were too long and were cut", registry=self.registry)
        self.tokens = Counter("gpt2wgpu_tokens", "tokens that were read", registry=self.registry)
        self.queue_size = Gauge("te_queue_size", "requests that wait or are computed", registry=self.registry)
        self.waiting = Gauge("gpt2wgpu_waiting_tokens", "tokens in the queue", registry=self.registry)
        self.bodies = Gauge("gpt2wgpu_body_bytes", "bytes of requests that are held", registry=self.registry)
        self.rate = Gauge("gpt2wgpu_tokens_per_second", "measured, of the last batches", registry=self.registry)

    def note_batch(self, batch: Finished) -> None:
        self.batch_sizes.observe(batch.texts)
        self.batch_tokens.observe(batch.tokens)
        self.batch_seconds.observe(batch.seconds)

    def note_arrival(self, texts: int) -> None:
        self.tei.requests[METHODS[texts > 1]] += 1
        self.tei.texts += texts

    def note_answer(self, found: Found, texts: int, seconds: float) -> None:
        self.tei.successes[METHODS[texts > 1]] += 1
        self.tei.text_successes += texts
        for histogram, value in (
            (self.duration, seconds),
            (self.request_seconds, seconds),
            (self.tokenization, found.tokenized),
            (self.queue, found.queued),
            (self.inference, found.computed),
            (self.lengths, found.tokens),
        ):
            histogram.observe(value)
        self.cut.inc(found.cut)
        self.tokens.inc(found.tokens)

    def note_failure(self, kind: str) -> None:
        self.tei.failed[FAILURES.get(kind, DROPPED)] += 1

    def text(self, service: Service) -> bytes:
        """Everything in Prometheus's text form."""
        self.queue_size.set(service.requests)
        self.waiting.set(service.scheduler.waiting_tokens)
        self.bodies.set(service.bytes)
        self.rate.set(service.scheduler.rate)
        return generate_latest(self.registry)
