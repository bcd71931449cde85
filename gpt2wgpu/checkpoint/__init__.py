"""A model folder in Hugging Face or sentence-transformers layout -> configuration, weights, and what follows the transformer."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError, show
from ..graph.tensor import Array, Tensor
from ..models import Architecture, read_config
from ..models.fields import Fields, read_fields
from . import modules as sentence
from .modules import LENGTH_FILES, Dense, Module, Normalize, Pooling
from .tensors import INDEX, Tensors
from .weights import TransformerWeights, cast

__all__ = [
    "Checkpoint",
    "Dense",
    "Normalize",
    "Pooling",
    "load",
    "read_config",
]

# what decides how a text becomes tokens, in the transformer's folder
TEXT_FILES = (
    *(f"sentence_{name}_config.json" for name in LENGTH_FILES),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json"),
)


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    folder: Path  # of the transformer and its tokenizer: `path`, or a folder in it that modules.json names
    architecture: str  # config.json's model_type
    config: Architecture
    modules: tuple[Module, ...]  # what follows the transformer, a Pooling first
    sentence_model: bool  # has a modules.json
    max_seq_length: int  # tokens, special ones included
    lower_case: bool
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None
    parameters: int  # of the transformer; heads and buffers do not count
    files_read: tuple[Path, ...]  # every file inside `path` that a vector may depend on, the tokenizer's included; sorted
    _body: TransformerWeights = field(repr=False)
    _dense: dict[str, Tensors] = field(repr=False)

    def hidden(self, layer: int, operand_dtype: str) -> Tensor:
        """The graph up to the hidden state after block `layer`, f32 (T, C), with matrices in `operand_dtype`, "f32" or "f16"."""
        return self.config.hidden(layer, operand_dtype)

    def weights(self, t: Tensor) -> Array:
        """The values of a weight of `hidden` or of a Dense module: t.shape, t.dtype, matrices laid out (in, out).

        f32 weights that are stored like that are views of the mapped file. Raises UserError on NaN and infinity.
        Of the files no more than this one stays in memory.
        """
        for files in (self._body.tensors, *self._dense.values()):
            files.forget()
        folder, _, name = t.name.rpartition(".linear.")
        if folder not in self._dense:
            return self._body.weights(t)
        tensors, name = self._dense[folder], f"linear.{name}"
        if name not in tensors.entries:
            return np.zeros(int(t.shape[0]), np.float32)  # a Dense without bias; checked at load
        return cast(tensors.read(name).T, t)

    def in_files(self, name: str, array: Array) -> tuple[str, dict[str, Array]]:
        """The inverse of `weights`: a folder inside the model folder, and what its file holds for the weight of this name."""
        folder, _, part = name.rpartition(".linear.")
        if folder in self._dense:
            return folder, {f"linear.{part}": array.T}
        return self.folder.relative_to(self.path).as_posix(), self._body.in_files(name, array)

    def beside(self) -> dict[str, Array]:
        """What else `transformers` expects in the transformer's file, though no vector depends on it, f32 copies."""
        return self._body.beside()

    def release(self) -> None:
        """Let go of the mapped files, which Windows neither moves nor deletes before. No view of them may be in use."""
        for tensors in (self._body.tensors, *self._dense.values()):
            tensors.release()

    def absent(self) -> set[str]:
        """Names of weights of the graph that are no part of the model: the zero biases of linear layers without bias."""
        dense = {f"{name}.linear.bias" for name, t in self._dense.items() if "linear.bias" not in t.entries}
        return dense | self._body.absent


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check everything but the values of the weights. Raises UserError."""
    if not path.is_dir():
        if path.exists():
            raise UserError(f"{show(path)} is a file, expected the folder of a model (config.json, model.safetensors, ...)")
        hint = "give a folder in Hugging Face layout (config.json, model.safetensors, ...) or a name on the hub, such as org/name"
        raise UserError(f"there is no folder {show(path)}: {hint}")
    sentence_model = (path / "modules.json").exists()
    listed = sentence.read_modules(path) if sentence_model else []
    folder = path / listed[0][1] if listed else path
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{show(folder)} holds an adapter (adapter_config.json): merge it into its model and save that")

    fields = read_fields(folder / "config.json")
    architecture, config = read_config(fields)
    body = TransformerWeights(config, Tensors(folder))
    length, lower_case = sentence.read_text_settings(folder, config.usable_length, sentence_model)

    modules: list[Module] = [] if listed else [sentence.default_pooling(fields)]
    dense: dict[str, Tensors] = {}
    width = config.width
    for kind, name in listed[1:]:
        file = path / name / "config.json"
        if kind == "Pooling":
            modules.append(pooling := sentence.read_pooling(read_fields(file), width))
            width *= len(pooling.modes)
        elif kind == "Dense":
            module, dense[name] = sentence.read_dense(read_fields(file), name, width)
            modules.append(module)
            width = module.outputs
        else:  # its folder may not exist
            sentence.check_feature_names(read_fields(file, optional=True))
            modules.append(Normalize())

    file = path / "config_sentence_transformers.json"
    settings = sentence.read_settings(read_fields(file, optional=True) if sentence_model else Fields(file, {}))
    names = {file, path / "modules.json", *(folder / name for name in TEXT_FILES), folder / "config.json"}
    names |= {path / name / "config.json" for _, name in listed[1:]}
    for tensors in (body.tensors, *dense.values()):
        names |= {tensors.folder / INDEX, *(entry.file for entry in tensors.entries.values())}
    return Checkpoint(
        path=path,
        folder=folder,
        architecture=architecture,
        config=config,
        modules=tuple(modules),
        sentence_model=sentence_model,
        max_seq_length=length,
        lower_case=lower_case,
        prompts=settings.prompts,
        default_prompt_name=settings.default_prompt_name,
        similarity_fn_name=settings.similarity_fn_name,
        truncate_dim=settings.truncate_dim,
        parameters=body.parameters,
        files_read=tuple(sorted(name for name in names if name.is_file())),
        _body=body,
        _dense=dense,
    )
