"""A model under training as a plain model folder, with what training goes on from beside it: RUN/model and, in it, training/.

A new folder is written under another name, down to the disk, and takes the place of the old one, which stays until then. So
whenever the process ends there is a complete one; `recover_run` finds it.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ..checkpoint import Checkpoint, Pooling
from ..errors import UserError, show
from ..files import sync
from ..graph.tensor import Array
from ..models.fields import read_fields
from .vocabulary import END_OF_TEXT

MODEL, NEW, PREVIOUS = "model", ".model-new", ".model-previous"
STATE, PROGRESS = "training/state.safetensors", "training/state.json"
DEFAULT_POOLINGS = {"mean": "mean_tokens", "last": "lasttoken"}  # of a folder without modules.json; their names in its config
SMALL = (".json", ".txt", ".model", ".bpe")  # what a model folder holds beside weights


@dataclass(frozen=True)
class Template:
    """A model folder but for the weights of its graph, in memory: the folder itself may be the one that is replaced."""

    checkpoint: Checkpoint
    files: dict[str, bytes]  # by their paths in the folder
    beside: dict[str, Array]  # of the transformer's file
    absent: set[str]
    dtype: str  # of the saved weights, "float32" or "float16"


def make_template(c: Checkpoint, *, max_seq_length: int, dtype: str) -> Template:
    """What is kept of a model's folder. A folder without modules.json gets what sentence-transformers needs.

    max_seq_length: tokens of a text that are read, as the saved folder will say. dtype: of the saved weights.
    """
    modules = [p.parent for p in c.path.glob("*/config.json") if p.parent != c.folder] if c.sentence_model else []
    found = {p for folder in {c.path, c.folder, *modules} for p in folder.iterdir() if p.is_file() and p.suffix in SMALL}
    files = {p.relative_to(c.path).as_posix(): p.read_bytes() for p in found if not p.name.endswith(".index.json")}
    body = c.folder.relative_to(c.path)
    for openai, name in {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}.items():
        if (data := files.pop((body / openai).as_posix(), None)) is not None:  # names that `transformers` does not know
            files.setdefault((body / name).as_posix(), data)

    def read(path: Path) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(files.get(path.as_posix(), b"{}"))
        return values

    def change(path: Path, **changes: Any) -> None:
        values = {k: v for k, v in (read(path) | changes).items() if v is not None}
        files[path.as_posix()] = json.dumps(values, indent=2).encode() + b"\n"

    # Whatever the weights are stored in, others are to compute in float32: float16 is slow on a CPU and overflows.
    change(body / "config.json", architectures=[c.config.model], torch_dtype="float32", dtype=None)
    change(body / "sentence_bert_config.json", max_seq_length=max_seq_length, do_lower_case=c.lower_case)
    tokenizer = body / "tokenizer_config.json"
    change(tokenizer, model_max_length=max_seq_length)  # for pipelines of `transformers`, which read nothing else
    if (prefix_space := undeclared_prefix_space(read(tokenizer), read(body / "tokenizer.json"))) is not None:
        change(tokenizer, add_prefix_space=prefix_space)
    if not c.sentence_model:
        kinds = {"": "Transformer", "1_Pooling": "Pooling"}
        modules_json = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds.items())
        ]
        files["modules.json"] = json.dumps(modules_json, indent=2).encode() + b"\n"
        pooling = {f"pooling_mode_{flag}": c.modules == (Pooling((mode,)),) for mode, flag in DEFAULT_POOLINGS.items()}
        change(Path("1_Pooling/config.json"), word_embedding_dimension=c.config.width, **pooling)
        if c.config.tokenizer == "gpt2" and "pad_token" not in read(tokenizer):
            change(tokenizer, pad_token=END_OF_TEXT)  # sentence-transformers pads its batches
    return Template(c, files, c.beside(), c.absent(), dtype)


def undeclared_prefix_space(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> bool | None:
    """What tokenizer_config.json must say of add_prefix_space so that all versions of `transformers` give the same ids.

    With its general class, `transformers` 4.46 to 4.57 takes a missing value as false, and 5 takes that of tokenizer.json,
    as we do. None where nothing needs to be said.
    """
    if "add_prefix_space" in config or config.get("tokenizer_class") not in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    step = tokenizer.get("pre_tokenizer") or {}  # they leave a sequence of several steps as it is
    return bool(step.get("add_prefix_space")) if step.get("type") == "ByteLevel" else None


def weight_files(t: Template, weights: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Weights of the graph by name -> the tensors of each model.safetensors, by the folder it lies in."""
    kind = np.dtype(t.dtype)
    body = t.checkpoint.folder.relative_to(t.checkpoint.path).as_posix()
    found: dict[str, dict[str, Array]] = {body: dict(t.beside)}
    for name, array in weights.items():
        if name not in t.absent:
            folder, tensors = t.checkpoint.in_files(name, array)
            found.setdefault(folder, {}).update(tensors)
    for tensors in found.values():
        for name, array in tensors.items():
            with np.errstate(over="ignore", under="ignore"):
                tensors[name] = np.ascontiguousarray(array, kind)
            if not np.isfinite(tensors[name]).all():
                raise UserError(f"tensor {name} does not fit in {t.dtype}: save float32")
    return found


def write_checkpoint(run: Path, t: Template, card: str, state: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
    """RUN/model, complete or as before. state: a program's; its weights become the model. progress: what else is needed."""
    new, model, previous = run / NEW, run / MODEL, run / PREVIOUS
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
    files = {**t.files, "README.md": card.encode(), PROGRESS: json.dumps(progress, indent=2).encode() + b"\n"}
    for name, data in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(data)
    weights = {name.removeprefix("weight/"): a for name, a in state.items() if name.startswith("weight/")}
    tensors = {f"{folder}/model.safetensors": arrays for folder, arrays in weight_files(t, weights).items()}
    for name, arrays in {**tensors, STATE: dict(state)}.items():
        save_file(arrays, new / name, metadata={"format": "pt"})
        shutil.copymode(new / PROGRESS, new / name)  # safetensors lets nobody else read its files
    for path in (*new.rglob("*"), new):
        sync(path)
    if model.exists():
        model.rename(previous)
    new.rename(model)
    sync(run)
    shutil.rmtree(previous, ignore_errors=True)


def recover_run(run: Path) -> bool:
    """Bring a run whose process ended at any moment into order. Whether it has a model to go on from."""
    new, model, previous = run / NEW, run / MODEL, run / PREVIOUS
    if not model.exists() and previous.exists():  # between the two renames of `write`: the new one is complete
        (new if new.exists() else previous).rename(model)
    for leftover in (new, previous):
        with suppress(FileNotFoundError):
            shutil.rmtree(leftover)
    return (model / PROGRESS).exists()


def read_progress(run: Path) -> dict[str, Any]:
    return read_fields(run / MODEL / PROGRESS).values


def read_train_state(run: Path) -> dict[str, Array]:
    path = run / MODEL / STATE
    try:
        return load_file(path)
    except Exception as error:
        raise UserError(f"{show(path)} cannot be read ({error}): start again in another folder") from None
