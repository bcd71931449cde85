"""A scheduler of the server with a gate before its device."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from gpt2wgpu import Encoder
from gpt2wgpu.serve.jobs import QueuedTexts, plan_like_encode
from gpt2wgpu.serve.scheduler import Finished, Scheduler


class Harness:
    """A scheduler, its batches, and a gate that holds the device."""

    def __init__(self, encoder: Encoder, room: int = 10**6) -> None:
        self.encoder, self.batches = encoder, list[Finished]()
        self.fatal: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        submit = encoder.engine.submit

        def gated(*args: Any, **options: Any) -> Callable[[], Any]:
            self.gate.wait()
            return submit(*args, **options)

        encoder.engine.submit = gated  # type: ignore[method-assign]
        self.scheduler = Scheduler(encoder, room=room, on_batch=self.batches.append, on_fatal=self.fatal.append)

    def job(self, texts: list[str]) -> QueuedTexts:
        sequences, _ = self.encoder.tokenizer.encode(texts, 512)
        engine = self.encoder.engine
        plan = None if self.scheduler.mixes else plan_like_encode(engine.max_tokens, 1024)
        vectors = np.empty((len(texts), engine.width), np.float32)
        return QueuedTexts(sequences, first=0, skip=0, vectors=vectors, plan=plan)

    def submit(self, texts: list[str]) -> QueuedTexts:
        found = self.job(texts)
        self.scheduler.submit([found])
        return found
