"""Checkpoints: RUN/model is a plain model folder, and RUN/model/training holds what a resumed run needs.

A new folder is written under another name, fsynced, and then renamed over the old one, which stays until then. So whenever
the process ends there is a complete one, which `recover_run` finds.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ..checkpoint import Checkpoint, Pooling
from ..checkpoint.saving import store_tensors
from ..checkpoint.settings import LENGTH_FILES, SENTENCE_FILE, find_length_file, set_length
from ..errors import UserError, between, show
from ..files import sync_to_disk
from ..graph.tensor import Array
from ..models.fields import read_fields
from .settings import TrainSettings
from .vocabulary import END_OF_TEXT, MODEL_INPUTS

MODEL, NEW, PREVIOUS, CARD = "model", ".model-new", ".model-previous", "README.md"
STATE, PROGRESS = "training/state.safetensors", "training/state.json"
DEFAULT_POOLINGS = {"mean": "mean_tokens", "last": "lasttoken"}  # for a folder without modules.json: mode -> flag
GENERAL_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes of no one family
KEPT_SUFFIXES = (".json", ".txt", ".model", ".bpe")  # of files other than weights in a model folder


@dataclass(frozen=True)
class Template:
    """A model folder without the weights of its graph, held in memory because the folder itself may be replaced."""

    checkpoint: Checkpoint
    files: dict[str, bytes]  # by path in the folder
    beside: dict[str, Array]  # tensors of the transformer's file that are not weights of the graph (Checkpoint.beside)
    absent: set[str]  # names of weights of the graph that the files do not hold (Checkpoint.absent)
    dtype: str  # the dtype of the saved weights, "float32" or "float16"


@dataclass(frozen=True)
class Progress:
    """Where a checkpoint stands: `step` steps are done, and micro-batch `batch` of epoch `epoch` comes next."""

    step: int
    epoch: int
    batch: int
    digest: str  # of the data and the validation file
    device: str
    state: str  # digest of the file with the program's state
    scores: dict[str, float]  # of the last validation
    settings: TrainSettings


def make_template(c: Checkpoint, *, max_seq_length: int, dtype: str) -> Template:
    """What is kept of a model's folder. A folder without modules.json gets what sentence-transformers needs.

    max_seq_length: tokens of a text that are read, as the saved folder will say. dtype: of the saved weights.
    """
    folders = {c.path, *(p.parent for p in c.files_read)}
    found = {p for folder in folders for p in folder.iterdir() if p.is_file() and p.suffix in KEPT_SUFFIXES}
    files = {p.relative_to(c.path).as_posix(): p.read_bytes() for p in found if not p.name.endswith(".index.json")}
    body = c.folder.relative_to(c.path)
    if not c.sentence_model:  # they were not read, and would be with the modules.json that is added
        files = {name: data for name, data in files.items() if name not in (*LENGTH_FILES, SENTENCE_FILE)}
    for openai, name in {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}.items():
        if (data := files.pop((body / openai).as_posix(), None)) is not None:  # names that `transformers` does not know
            files.setdefault((body / name).as_posix(), data)

    def read(path: Path) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(files.get(path.as_posix(), b"{}"))
        return values

    def change(path: Path, **changes: Any) -> None:
        values = {k: v for k, v in (read(path) | changes).items() if v is not None}
        files[path.as_posix()] = json.dumps(values, indent=2).encode() + b"\n"

    # Other libraries should compute in float32, whatever dtype is stored: float16 is slow on a CPU and overflows.
    change(body / "config.json", architectures=[c.config.model], torch_dtype="float32", dtype=None, quantization_config=None)
    texts = body / (find_length_file(c.folder).path.name if c.sentence_model else LENGTH_FILES[0])
    change(texts, **{**set_length(read(texts), max_seq_length), "do_lower_case": c.lower_case})
    tokenizer = body / "tokenizer_config.json"
    change(tokenizer, model_max_length=max_seq_length)  # for pipelines of `transformers`, which read nothing else
    if (prefix_space := undeclared_prefix_space(read(tokenizer), read(body / "tokenizer.json"))) is not None:
        change(tokenizer, add_prefix_space=prefix_space)
    general = read(tokenizer).get("tokenizer_class") in GENERAL_TOKENIZERS
    if c.config.tokenizer == "gpt2" and general and "model_input_names" not in read(tokenizer):
        change(tokenizer, model_input_names=MODEL_INPUTS)
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
    """The add_prefix_space that tokenizer_config.json must declare so that all versions of `transformers` give the same ids.

    For the general tokenizer class, `transformers` 4.46 to 4.57 treats a missing value as false; 5 takes the value in
    tokenizer.json, as we do. None if nothing need be declared.
    """
    if "add_prefix_space" in config or config.get("tokenizer_class") not in GENERAL_TOKENIZERS:
        return None
    step = tokenizer.get("pre_tokenizer") or {}  # all versions leave a sequence of several steps alone
    return bool(step.get("add_prefix_space")) if step.get("type") == "ByteLevel" else None


def weight_files(t: Template, weights: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Weights of the graph by name -> the tensors of each model.safetensors, by the folder that it lies in.

    Raises UserError if a value overflows the dtype.
    """
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
                raise UserError(f"a value of {name} overflows {t.dtype}: use --dtype float32")
    return found


def write_checkpoint(run: Path, t: Template, card: str, state: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
    """Replace RUN/model, atomically. state: the program's; its weights, or their average
    if there is one, become the model. progress: what else a resumed run
    needs, as JSON values."""
    new, model, previous = run / NEW, run / MODEL, run / PREVIOUS
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
    for name, data in {**t.files, CARD: card.encode()}.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(data)
    (new / STATE).parent.mkdir()
    weights = {name.removeprefix("weight/"): a for name, a in state.items() if name.startswith("weight/")}
    weights |= {name.removeprefix("average/"): a for name, a in state.items() if name.startswith("average/")}
    tensors = {f"{folder}/model.safetensors": arrays for folder, arrays in weight_files(t, weights).items()}
    for name, arrays in {**tensors, STATE: dict(state)}.items():
        store_tensors(arrays, new / name)
        shutil.copymode(new / CARD, new / name)  # safetensors writes files that only their owner can read
    values = {**progress, "state": digest_file(new / STATE)}
    (new / PROGRESS).write_bytes(json.dumps(values, indent=2).encode() + b"\n")
    for path in (*new.rglob("*"), new):
        sync_to_disk(path)
    if model.exists():
        model.rename(previous)
    new.rename(model)
    sync_to_disk(run)
    shutil.rmtree(previous, ignore_errors=True)


def recover_run(run: Path) -> bool:
    """Repair a run whose process ended at any moment. Returns whether it holds a checkpoint to resume from."""
    new, model, previous = run / NEW, run / MODEL, run / PREVIOUS
    if not model.exists() and previous.exists():  # it ended between the two renames, so the new one is complete
        (new if new.exists() else previous).rename(model)
    for leftover in (new, previous):
        with suppress(FileNotFoundError):
            shutil.rmtree(leftover)
    return (model / PROGRESS).exists()


def read_progress(run: Path) -> Progress:
    """Where a checkpoint stands. Raises UserError if the file is damaged."""
    path = run / MODEL / PROGRESS
    values = read_fields(path).values
    try:
        return Progress(
            step=between("step", values["step"], 0, 1 << 60),
            epoch=between("epoch", values["epoch"], 1, 1 << 60),
            batch=between("batch", values["batch"], 0, 1 << 60),
            digest=str(values["digest"]),
            device=str(values["device"]),
            state=str(values["state"]),
            scores={name: float(value) for name, value in values["scores"].items()},
            settings=TrainSettings.from_json(values["settings"], run),
        )
    except UserError as error:
        raise UserError(f"{show(path)}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"{show(path)} is damaged, or of another version of gpt2wgpu"
        raise UserError(f"{found} ({show(error)}): start a new run in another folder") from None


def read_train_state(run: Path, digest: str) -> dict[str, Array]:
    """The state of the program in a checkpoint. digest: the file's. Raises UserError if it is damaged."""
    path = run / MODEL / STATE
    try:
        if digest_file(path) != digest:
            raise ValueError("its contents changed")
        return load_file(path)
    except Exception as error:
        raise UserError(f"{show(path)} cannot be read ({error}): start a new run in another folder") from None


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
