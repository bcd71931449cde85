"""Ray Data: a column of texts -> a column of vectors, on any number of machines.

dataset.map_batches(
    Gpt2WgpuEmbedder, fn_constructor_kwargs={"column": "text"}, batch_size=1024,
    compute=ray.data.ActorPoolStrategy(size=2), resources={"wgpu": 1}, num_cpus=0,
)

Ray counts only the GPUs of some makers. So when you start Ray, say how many GPUs the machine has, as a custom resource, and
ask for one per worker: `ray start --resources='{"wgpu": 2}'` or `ray.init(resources={"wgpu": 2})`. num_cpus=0 leaves
the CPUs to the tasks that read and write: if workers reserved all of them, they would wait for a batch for ever.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

try:
    import pyarrow
    import ray.data  # noqa: F401
except ImportError as error:
    raise ImportError('Ray Data is not installed: pip install "ray[data]"') from error

from filelock import FileLock, Timeout

from ..devices.choose import has_gpu_node
from ..encoder import Encoder
from ..errors import UserError


class Gpt2WgpuEmbedder:
    """A worker: batches of rows in, the same rows and a column of their vectors, float32 (n, C), out.

    column: holds the texts. output: gets the vectors. device: "auto" gives each worker on a machine its own GPU, or numpy if
    there is none. prompt_name: one of the model's prompts. The other options are those of all adapters.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        column: str = "text",
        output: str = "embedding",
        device: str | int | None = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        normalize: bool = False,
        prompt_name: str | None = None,
    ) -> None:
        self.column = column
        self.output = output
        self.normalize = normalize
        self.prompt_name = prompt_name
        if device in ("auto", None):
            device, self._lock = own_gpu()
        self.encoder = Encoder(model, device=device, dtype=dtype, revision=revision)

    def __call__(self, batch: Any) -> Any:
        """The batch with its vectors. The batch itself is Ray's memory and stays unchanged.

        Of `batch_format="pyarrow"` the column is a FixedSizeList<float32>, which any reader of Parquet understands; else it is
        one of Ray's tensors.
        """
        arrow = isinstance(batch, pyarrow.Table)
        names = batch.column_names if arrow else [*batch]
        if self.column not in names:
            raise UserError(f"there is no column {self.column!r}, only {', '.join(names)}: choose that of the texts with column=")
        if self.output in names:
            raise UserError(f"there is a column {self.output!r} already: choose another name for the vectors with output=")
        texts = batch[self.column].to_pylist() if arrow else batch[self.column]
        vectors = self.encoder.encode(texts, self.prompt_name, normalize_embeddings=self.normalize)
        if not arrow:
            return {**batch, self.output: vectors}
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
        return batch.append_column(self.output, lists)


def own_gpu() -> tuple[str | int, FileLock | None]:
    """The number of the best GPU that no other worker on this machine has, and the lock that reserves it until we end.

    "auto" where there is no GPU, or where GPT2WGPU_DEVICE says what that means. Raises UserError if all are taken.
    """
    if os.environ.get("GPT2WGPU_DEVICE") or not has_gpu_node():
        return "auto", None
    from ..gpu import choose_adapter, list_adapters

    best = choose_adapter("auto")
    if best is None:
        return "auto", None
    # the best one first; a GPU may be listed once for each backend
    gpus = [best, *(a for a in list_adapters() if not a.software and a.backend == best.backend and a.index != best.index)]
    for gpu in gpus:
        lock = FileLock(Path(tempfile.gettempdir()) / f"gpt2wgpu-{gpu.index}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return gpu.index, lock
    raise UserError(f"{len(gpus)} GPUs, and each has a worker already: ask for resources={{'wgpu': 1}}, or name a device")
