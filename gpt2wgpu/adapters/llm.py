"""Plugin of `llm`, found by it where both are installed: `llm embed -m gpt2wgpu -c "a text"`.

"gpt2wgpu" is the built-in model; the models that `gpt2wgpu models` lists are "gpt2wgpu/NAME". Any other model, a folder too, is
made known once: `llm gpt2wgpu register path/to/a/folder --id mine` makes it "gpt2wgpu/mine". The environment variable
GPT2WGPU_DEVICE chooses the device.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

try:
    import click
    import llm
except ImportError as error:
    raise ImportError("llm is not installed: pip install llm") from error

from ..errors import UserError, show
from . import EncoderAdapter


class CommandError(click.ClickException, UserError):
    """A UserError that `llm` also shows as one line."""


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


def registered_file() -> Path:
    """The file, in llm's folder, that holds registered models by id."""
    return llm.user_dir() / "gpt2wgpu.json"


def read_registered() -> dict[str, str]:
    """id -> folder or name of each registered model. Raises CommandError for a broken file."""
    file = registered_file()
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
        return {str(name): str(model) for name, model in found.items()}
    except (OSError, ValueError, AttributeError):
        raise CommandError(f"{show(file)} is not a JSON object of models: mend or delete it") from None


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """The models that `llm embed-models` lists."""
    from ..hub.known import MODELS

    register(Gpt2WgpuEmbeddingModel("gpt2wgpu", None))
    names = [known.name.removeprefix("sentence-transformers/") for known in MODELS]
    for model_id, model in {**{name: name for name in names}, **read_registered()}.items():
        register(Gpt2WgpuEmbeddingModel(f"gpt2wgpu/{model_id}", model))


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """The command group `llm gpt2wgpu`."""

    @cli.group()
    def gpt2wgpu() -> None:
        """Models that gpt2wgpu computes."""

    @gpt2wgpu.command()
    @click.argument("model")
    @click.option("--id", "model_id", help="Its name in llm, after gpt2wgpu/. Default: the folder's, or the model's own.")
    def register(model: str, model_id: str | None) -> None:
        """Make a model known to llm: a folder, or a name on the Hugging Face hub."""
        from ..checkpoint import load_checkpoint
        from ..hub import find_model

        folder = Path(model)
        try:
            load_checkpoint(find_model(model))
        except UserError as error:
            raise CommandError(str(error)) from error
        kept = str(folder.absolute()) if folder.is_dir() else model
        name = model_id or (folder.resolve().name if folder.is_dir() else model)
        file, models = registered_file(), read_registered() | {name: kept}
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(models, indent=1) + "\n", "utf-8")
        part.replace(file)
        click.echo(f"gpt2wgpu/{name}")
