"""Plugin of `llm`, found by it where both are installed: `llm embed -m gpt2wgpu -c "a text"`.

"gpt2wgpu" is the built-in model; the models that `gpt2wgpu models` lists are "gpt2wgpu/NAME". The device is chosen by the
environment variable GPT2WGPU_DEVICE.
"""

from collections.abc import Callable, Iterable, Iterator

try:
    import click
    import llm
except ImportError as error:
    raise ImportError("llm is not installed: pip install llm") from error

from ..errors import UserError
from . import EncoderAdapter


class CommandError(click.ClickException, UserError):
    """A UserError that the command `llm` shows as one line, too."""


class Gpt2WgpuEmbeddingModel(EncoderAdapter, llm.EmbeddingModel):
    """A model of this package in `llm`, which has its own --prepend for prompts. model: as of Encoder."""

    def __init__(self, model_id: str, model: str | None) -> None:
        super().__init__(model)
        self.model_id = model_id

    def embed_batch(self, items: Iterable[str], *, key: str | None = None) -> Iterator[list[float]]:
        """The vectors of texts one by one, C floats each."""
        try:
            for vector in self._encoder().encode_stream(items):
                yield vector.tolist()
        except UserError as error:
            raise CommandError(str(error)) from error


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """The models that `llm embed-models` lists."""
    from ..hub.known import MODELS

    register(Gpt2WgpuEmbeddingModel("gpt2wgpu", None))
    for known in MODELS:
        name = known.name.removeprefix("sentence-transformers/")
        register(Gpt2WgpuEmbeddingModel(f"gpt2wgpu/{name}", name))
