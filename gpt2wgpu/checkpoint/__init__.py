"""A model folder in Hugging Face or sentence-transformers layout -> configuration, weights, and what follows the transformer.

weights.py   the transformer's tensors -> the weights of its graph
tensors.py   the tensors in safetensors files
modules.py   modules.json: what follows the transformer
settings.py  lengths, lower-casing, prompts, similarity of a sentence-transformers folder
prompts.py   which prompt a call uses; prompts of families whose folders have none, such as e5
graph.py     the transformer and the modules -> one graph
rewriting.py the tensors of one file -> a file in another dtype
saving.py    a checkpoint -> a folder
fitted.py    modules fitted on vectors, which no file holds yet
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, show
from ..graph.tensor import Array, Tensor
from ..models import Architecture, read_config
from ..models.fields import Fields, is_absent, read_fields
from .modules import Dense, LayerNorm, Module, Normalize, Pooling, default_pooling, open_modules, read_modules
from .rewriting import write_tensors
from .settings import LENGTH_FILES, SENTENCE_FILE, read_sentence_settings, read_transformer_settings
from .tensors import INDEX, Tensors
from .weights import TransformerWeights, cast_weight

__all__ = [
    "Checkpoint",
    "Dense",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "load_checkpoint",
]

# the files in the transformer's folder that decide how a text becomes tokens
TEXT_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json"),
)
PARTS = {".linear.": "linear.", ".layer_norm.": "norm."}  # in a module's weight names: in the graph -> in its file


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose files are checked; the values of its weights are read when they are asked for."""

    path: Path
    folder: Path  # holds the transformer and its tokenizer: `path`, or a folder in it that modules.json names
    architecture: str  # config.json's model_type
    config: Architecture
    modules: tuple[Module, ...]  # what follows the transformer, a Pooling first
    sentence_model: bool  # has a modules.json
    max_seq_length: int  # tokens, special ones included
    lower_case: bool
    tokenizer_arguments: dict[str, Any]  # from sentence_bert_config.json; they override the tokenizer's files
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None
    parameters: int  # numbers in the transformer's weights, without heads and buffers
    files_read: tuple[Path, ...]  # every file inside `path` that a vector may depend on, the tokenizer's included; sorted
    _body: TransformerWeights = field(repr=False)
    _tensors: dict[str, Tensors] = field(repr=False)  # of the modules that have weights, by folder
    fitted: Mapping[str, Array] = field(default_factory=dict, repr=False)  # weights of modules that no file holds, by name

    def weights(self, t: Tensor) -> Array:
        """The values of a weight of the transformer's graph or of a module: t.shape, t.dtype, matrices laid out (in, out).

        A weight that is stored in this form is a view of the mapped file. Raises UserError for NaN or infinity, and if a file
        changed. Pages of other weights are given back, so only this one occupies memory.
        """
        if t.name in self.fitted:
            return cast_weight(self.fitted[t.name], t)
        for tensors in self._all_tensors():
            tensors.forget()
        folder, part = self._part(t.name)
        if folder is None:
            return self._body.weights(t)
        tensors = self._tensors[folder]
        if part not in tensors.entries:
            return np.zeros(int(t.shape[0]), np.float32)  # a Dense without bias; checked at load
        return cast_weight(tensors.read(part).T, t)

    def stored_int8(self, t: Tensor) -> tuple[Array, Array] | None:
        """The integers and the scales of a weight of the transformer's graph that the files hold in int8, otherwise None."""
        for tensors in self._all_tensors():
            tensors.forget()
        return self._body.stored_int8(t)

    def holds_int8(self) -> bool:
        """Whether the files hold any of the transformer's weights in int8."""
        return self._body.holds_int8()

    def body_files(self) -> set[Path]:
        """The files that hold the transformer's weights, and the index of shards."""
        entries = self._body.tensors.entries.values()
        return {entry.file for entry in entries} | {self.folder / INDEX}

    def write_body(self, folder: Path, dtype: str) -> None:
        """Write the transformer's file of weights to `folder` in another dtype (see `write_tensors`). Raises UserError."""
        write_tensors(folder / "model.safetensors", self._body.tensors, self._body.group_axes, dtype)

    def in_files(self, name: str, array: Array) -> tuple[str, dict[str, Array]]:
        """The inverse of `weights`: a folder inside the model folder, and the tensors of its file for the weight of this name."""
        folder, part = self._part(name)
        if folder is not None:
            return folder, {part: array.T}
        return self.folder.relative_to(self.path).as_posix(), self._body.in_files(name, array)

    def _part(self, name: str) -> tuple[str | None, str]:
        """The module's folder and the name in its file for a weight of the graph; None for a weight of the transformer."""
        for between, prefix in PARTS.items():
            folder, _, part = name.rpartition(between)
            if folder in self._tensors and between in name:
                return folder, prefix + part
        return None, name

    def beside(self) -> dict[str, Array]:
        """f32 copies of tensors that `transformers` expects in the transformer's file although no vector depends on them."""
        return self._body.beside()

    def check_unchanged(self) -> None:
        """Raise UserError if a file of weights was overwritten or truncated while in use. Cheap enough for every batch."""
        for tensors in self._all_tensors():
            tensors.check_unchanged()

    def release(self) -> None:
        """Unmap the files of weights: Windows neither moves nor deletes a mapped file. No view of them may be in use."""
        for tensors in self._all_tensors():
            tensors.release()

    def absent(self) -> set[str]:
        """Names of weights of the graph that the files do not hold: biases that are zero, computed tables."""
        dense = (m.name for m in self.modules if isinstance(m, Dense))
        return {f"{n}.linear.bias" for n in dense if "linear.bias" not in self._tensors[n].entries} | self._body.absent

    def _all_tensors(self) -> tuple[Tensors, ...]:
        return self._body.tensors, *self._tensors.values()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check everything but the values of the weights. Raises UserError."""
    check_folder(path)
    sentence_model = not is_absent(path / "modules.json")
    listed = read_modules(path) if sentence_model else []
    folder = path / listed[0][1] if listed else path
    if not is_absent(folder / "adapter_config.json"):
        raise UserError(f"{show(folder)} holds an adapter (adapter_config.json): merge it into its model and save that")

    text = read_transformer_settings(folder, sentence_model)
    fields = text.change(read_fields(folder / "config.json"))
    architecture, config = read_config(fields)
    body = TransformerWeights(config, Tensors(folder))
    modules, tensors = open_modules(path, listed[1:], config.width)
    file = path / SENTENCE_FILE
    sentence = read_sentence_settings(read_fields(file, optional=True) if sentence_model else Fields(file, {}))
    return Checkpoint(
        path=path,
        folder=folder,
        architecture=architecture,
        config=config,
        modules=modules or (default_pooling(fields),),
        sentence_model=sentence_model,
        max_seq_length=text.length(folder, config.usable_length),
        lower_case=text.lower_case,
        tokenizer_arguments=text.tokenizer,
        prompts=sentence.prompts,
        default_prompt_name=sentence.default_prompt_name,
        similarity_fn_name=sentence.similarity_fn_name,
        truncate_dim=sentence.truncate_dim,
        parameters=body.parameters,
        files_read=list_files_read(path, folder, [name for _, name in listed], [body.tensors, *tensors.values()]),
        _body=body,
        _tensors=tensors,
    )


def check_folder(path: Path) -> None:
    """Raise UserError unless `path` is a folder that looks like a model's."""
    hint = "give a folder in Hugging Face layout (config.json, model.safetensors, ...) or a name on the hub, such as org/name"
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no folder {show(path)}: {hint}") from None
    except (OSError, ValueError) as e:  # a name that is too long or has a zero byte, no access
        why = e.strerror if isinstance(e, OSError) else str(e)
        raise UserError(f"{show(path)} cannot be opened: {why or 'no access'}: {hint}") from None
    if not is_folder:
        raise UserError(f"{show(path)} is a file, expected the folder of a model (config.json, model.safetensors, ...)")
    if is_absent(path / "config.json") and is_absent(path / "modules.json"):
        raise UserError(f"{show(path)} is not the folder of a model, as its config.json is missing: {hint}")


def list_files_read(path: Path, folder: Path, modules: list[str], tensors: list[Tensors]) -> tuple[Path, ...]:
    """The files of `Checkpoint.files_read` that exist. folder: of the transformer; modules: the folders in modules.json."""
    found = {folder / name for name in ("config.json", *TEXT_FILES)} | {path / name / "config.json" for name in modules}
    if modules:  # without modules.json the files of sentence-transformers are not read
        found |= {path / "modules.json", path / SENTENCE_FILE, *(folder / name for name in LENGTH_FILES)}
    for part in tensors:
        found |= {part.folder / INDEX, *(entry.file for entry in part.entries.values())}
    return tuple(sorted(file for file in found if file.is_file()))
