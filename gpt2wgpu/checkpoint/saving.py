"""A checkpoint and the current options -> a model folder that this package and sentence-transformers load."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..errors import UserError, show
from ..graph.tensor import Array
from ..models import INT8
from . import Checkpoint
from .modules import MODE_FLAGS, MODES, Dense, Module, Pooling, read_modules
from .rewriting import CODES
from .settings import SENTENCE_FILE, find_length_file, set_length

POOLING_FLAGS = {MODES[mode]: flag for mode, flag in MODE_FLAGS.items()}  # by the names of ops.POOLINGS


def save_checkpoint(
    c: Checkpoint,
    target: Path,
    modules: Sequence[Module],
    max_seq_length: int,
    settings: Mapping[str, Any],
    dtype: str | None,
) -> None:
    """Copy the files that vectors depend on, with these options written into them. The folder appears when it is complete.

    modules: those after the transformer, which may differ from the files in the pooling and in fitted ones. settings: of
    config_sentence_transformers.json. dtype: of the transformer's weights, "float32", "float16" or "int8"; None: that of
    the files, but float16 for int8. Raises UserError if `target` holds anything.
    """
    if dtype is not None and dtype not in CODES:
        raise UserError(f"dtype must be one of {', '.join(CODES)}, not {dtype!r}")
    dtype = dtype or ("float16" if c.holds_int8() else None)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{show(target)} is there already and is not an empty folder: save to another name")
    body = c.folder.relative_to(c.path)
    weights = c.body_files()
    part = target.parent / f".gpt2wgpu-{uuid4().hex}"
    try:
        for file in (*c.files_read, c.path / "README.md"):
            if file.is_file() and (dtype is None or file not in weights):
                copy = part / file.relative_to(c.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        if dtype is not None:
            c.write_body(part / body, dtype)
            # other libraries should compute in float32, whatever dtype is stored
            changes = {"quantization_config": INT8 if dtype == "int8" else None, "torch_dtype": "float32", "dtype": None}
            update_json(part / body / "config.json", changes)
        if not c.sentence_model:
            kinds = {body.as_posix(): "Transformer", "1_Pooling": "Pooling"}
            write_object(part / "modules.json", [list_module(i, *item) for i, item in enumerate(kinds.items())])
            if c.config.tokenizer == "gpt2":  # sentence-transformers pads its batches
                update_json(part / body / "tokenizer_config.json", {"pad_token": "<|endoftext|>"}, keep=True)
        if modules[0] != c.modules[0] or not c.sentence_model:
            update_pooling(part, modules[0], c.config.width)
        if c.fitted:
            write_fitted(c, part, modules)
        lengths = find_length_file(part / body)
        update_json(lengths.path, {**set_length(lengths.values, max_seq_length), "do_lower_case": c.lower_case})
        update_json(part / SENTENCE_FILE, settings)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except BaseException as error:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and is_writing(error, part):
            raise OSError(error.errno, error.strerror or str(error), str(target)) from None
        raise


def is_writing(error: OSError, part: Path) -> bool:
    """Whether writing failed, not reading: a full disk has no name, or that of the file which was copied before the copy's."""
    return error.filename is None or error.filename2 is not None or Path(error.filename).is_relative_to(part)


def update_pooling(part: Path, pooling: Module, width: int) -> None:
    """Write the config.json of the Pooling module in the folder `part`. width: of the hidden states."""
    assert isinstance(pooling, Pooling)
    folder = next(folder for kind, folder in read_modules(part) if kind == "Pooling")
    flags = {f"pooling_mode_{flag}": mode in pooling.modes for mode, flag in POOLING_FLAGS.items()}
    values = {"word_embedding_dimension": width, **flags, "include_prompt": pooling.include_prompt}
    (part / folder).mkdir(exist_ok=True)
    write_object(part / folder / "config.json", values)


def write_fitted(c: Checkpoint, part: Path, modules: Sequence[Module]) -> None:
    """The modules from the first fitted one on: their entries in modules.json, and their folders."""
    names = {name.removesuffix(".linear.weight") for name in c.fitted}
    first = next((i for i, m in enumerate(modules) if isinstance(m, Dense) and m.name in names), len(modules))
    listed = json.loads((part / "modules.json").read_text("utf-8-sig"))
    for m in modules[first:]:
        i, kind = len(listed), type(m).__name__
        folder = m.name if isinstance(m, Dense) else f"{i}_{kind}"
        listed.append({**list_module(i, folder, kind), "name": folder})
        (part / folder).mkdir()
        if isinstance(m, Dense):
            identity = "torch.nn.modules.linear.Identity"
            config = {"in_features": m.inputs, "out_features": m.outputs, "bias": True, "activation_function": identity}
            write_object(part / folder / "config.json", config)
            weight, bias = (c.fitted[f"{m.name}.linear.{name}"] for name in ("weight", "bias"))
            tensors = {"linear.weight": np.ascontiguousarray(weight.T), "linear.bias": bias}
            store_tensors(tensors, part / folder / "model.safetensors")
            shutil.copymode(part / folder / "config.json", part / folder / "model.safetensors")
    write_object(part / "modules.json", listed)


def store_tensors(tensors: dict[str, Array], path: Path) -> None:
    """A safetensors file. Raises OSError where safetensors has an exception of its own, for a full disk too."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        found = re.search(r"I/O error: (.*) \(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[2]), found[1], str(path)) from None


def list_module(i: int, path: str, kind: str) -> dict[str, Any]:
    """An entry of modules.json."""
    return {"idx": i, "name": str(i), "path": path.removeprefix("."), "type": f"sentence_transformers.models.{kind}"}


def update_json(path: Path, values: Mapping[str, Any], keep: bool = False) -> None:
    """Set fields of the JSON object in a file, which need not exist; None removes a field. keep: leave existing fields alone."""
    found = json.loads(path.read_text("utf-8-sig")) if path.exists() else {}
    found = {**values, **found} if keep else {**found, **values}
    write_object(path, {name: value for name, value in found.items() if value is not None})


def write_object(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
