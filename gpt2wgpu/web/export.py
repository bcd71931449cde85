"""An Encoder -> a folder for browsers: the graph with its kernels, weights, tokenizer, and the JavaScript that replays it."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from .. import __version__
from ..checkpoint import Pooling
from ..checkpoint.graph import build_graph
from ..checkpoint.prompts import find_prompt, first_prompt
from ..checkpoint.saving import store_tensors
from ..encoder import Encoder
from ..errors import UserError, show
from ..graph.int8 import int8_weights
from ..graph.packing import pack_batch, position_ids
from ..graph.reference import NumpyProgram
from ..graph.tensor import Array, Tensor, schedule
from .forms import JsonObject, graph_form, page_capacity
from .tokenizers import check_web_tokenizer
from .weights import page_tensors, page_values, stored_dtype, weight_digests

STATIC = Path(__file__).parent / "static"
FORMAT = 1  # of engine.json; engine.js refuses any other
PAGE_DTYPES = {"f16": "f16", "float16": "f16", "f32": "f32", "float32": "f32", "int8": "int8"}
# A page computes these before anything else and refuses to go on with other vectors: several lengths, several scripts.
CHECK_TEXTS = (
    "A cat",
    "Über den Wolken muss die Freiheit wohl grenzenlos sein: 12 °C, 東京, 🙂!",
    "The browser computes this sentence on its reader's graphics card, with the kernels that Python wrote down, and compares the "
    "vector with the one that numpy gave when the folder was made; if the two differ, a driver or a file is wrong, and nothing "
    "else will be computed, because a wrong vector looks just like a right one.",
)


def export_web(encoder: Encoder, folder: str | Path, dtype: str | None = None) -> dict[str, int]:
    """Write the folder; it appears when it is complete. Returns the bytes of each file.

    encoder: its layer, pooling, prompts, lengths and truncation are exported as they are now. dtype: of the matrices in the
    folder, "f16" (half the download; a page widens them, or computes in f16 if asked to), "f32", or "int8" (a quarter; widened);
    None: "int8" for a model whose files hold them in int8, which changes none of them, otherwise "f16".
    Raises UserError if the folder is not empty or the model cannot be exported.
    """
    if dtype is not None and dtype not in PAGE_DTYPES:
        raise UserError(f"dtype must be one of f16, f32, int8, not {dtype!r}: a page reads matrices in these")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{show(target)} is there already and is not an empty folder: export to another name")
    if not target.parent.is_dir():
        raise UserError(f"{show(target.parent)} is not a folder: make it first")
    part = target.parent / f".gpt2wgpu-{uuid4().hex}"
    try:
        copy_static(part)
        fill_folder(encoder, part, stored_dtype(encoder.checkpoint, encoder.layer) if dtype is None else PAGE_DTYPES[dtype])
        if target.exists():
            target.rmdir()
        part.rename(target)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise
    return {file.relative_to(target).as_posix(): file.stat().st_size for file in sorted(target.rglob("*")) if file.is_file()}


def copy_static(part: Path) -> None:
    """The files that are the same for every model. Raises UserError if the folder cannot be made."""
    try:
        part.mkdir()
    except OSError as error:
        raise UserError(f"{show(part.parent)} cannot be written to ({error.strerror}): export to another place") from None
    shutil.copytree(STATIC, part, dirs_exist_ok=True)


def fill_folder(encoder: Encoder, part: Path, dtype: str) -> None:
    """The files of the folder that depend on the model."""
    c = encoder.checkpoint
    if encoder._layers:
        raise UserError("several layers side by side cannot be exported: make an Encoder with one layer")
    computed = ("f32", "f16") if dtype == "f16" else ("f32",)
    graphs = {name: build_graph(c, encoder.layer, name, encoder.modules) for name in computed}
    int8 = int8_weights(schedule(c.config.hidden(encoder.layer))) if dtype == "int8" else {}
    leaves = [t for t in schedule(graphs[computed[-1]]) if t.is_weight]
    tensors = page_tensors(c, leaves, int8, narrow=dtype != "f32")
    store_tensors(tensors, part / "weights.safetensors")
    shutil.copymode(part / "engine.js", part / "weights.safetensors")  # safetensors lets only the owner read it
    tokenizer = tokenizer_json(encoder).encode()
    (part / "tokenizer.json").write_bytes(tokenizer)
    capacity = page_capacity(encoder.max_seq_length)
    engine: JsonObject = {
        "format": FORMAT,
        "made_by": f"gpt2wgpu {__version__}",
        "model": model_name(encoder),
        "dtype": dtype,
        **engine_vectors(encoder),
        "capacity": capacity,
        "text": engine_text(encoder),
        "weights": {"file": "weights.safetensors", "bytes": (part / "weights.safetensors").stat().st_size},
        "digests": {"tokenizer.json": hashlib.sha256(tokenizer).hexdigest(), **weight_digests(part / "weights.safetensors")},
        "checks": make_checks(encoder, graphs["f32"], page_values(tensors, int8)),
        "forms": {name: graph_form(graph, capacity) for name, graph in graphs.items()},
    }
    engine["hash"] = hashlib.sha256(dump_json(engine).encode()).hexdigest()  # with the digests: of all that vectors depend on
    (part / "engine.json").write_text(dump_json(engine), encoding="utf-8")
    (part / "package.json").write_text(json.dumps(describe_package(encoder), indent=2) + "\n", encoding="utf-8")


def engine_vectors(encoder: Encoder) -> JsonObject:
    """What engine.json says of prompts and vectors."""
    prompts = encoder.prompts
    return {
        "width": encoder.width,
        "dimensions": encoder.dimensions,
        "similarity": encoder.similarity_fn_name,
        "prompts": prompts,
        "default_prompt": find_prompt(prompts, None, None, encoder.default_prompt_name) or None,
        "query_prompt": first_prompt(prompts, "query"),
        "document_prompt": first_prompt(prompts, "document", "passage", "corpus"),
        "include_prompt": all(m.include_prompt for m in encoder.modules if isinstance(m, Pooling)),
        "position_pad": encoder.checkpoint.config.pad,
    }


def engine_text(encoder: Encoder) -> JsonObject:
    """What engine.json says of texts beside tokenizer.json."""
    tokenizer = encoder.tokenizer
    head, tail = tokenizer.special_ends()
    return {
        "max_length": encoder.max_seq_length,
        "head": head,
        "tail": tail,
        "cuts_left": tokenizer.cuts_left,
        "empty": None if head or tail else empty_id(encoder),
        "vocab": tokenizer.vocab,
        "special": sorted(tokenizer.special_ids()),
    }


def empty_id(encoder: Encoder) -> int | None:
    """The id that stands for a text without tokens; None if there is none, so that such texts are refused."""
    try:
        return int(encoder.tokenizer.encode([""], encoder.max_seq_length)[0][0][0])
    except UserError:
        return None


def tokenizer_json(encoder: Encoder) -> str:
    """The tokenizer as it is used: with what tokenizer_config.json overrides. Raises UserError for what a page cannot do."""
    library = encoder.tokenizer.library
    if library.encode_special_tokens:
        raise UserError("split_special_tokens is set in tokenizer_config.json, which a page cannot do: export another model")
    state = json.loads(library.to_str())
    check_web_tokenizer(state)
    return dump_json(state)


def make_checks(encoder: Encoder, graph: Tensor, read: Callable[[Tensor], Array]) -> list[JsonObject]:
    """The texts that a page computes first, and their vectors (width,) in numpy from the weights as the folder holds them."""
    tokenizer, pad = encoder.tokenizer, encoder.checkpoint.config.pad
    ids, _ = tokenizer.encode(CHECK_TEXTS, encoder.max_seq_length)
    batch = pack_batch(ids, [position_ids(i, pad) for i in ids], [0] * len(ids))
    program = NumpyProgram(graph, read)
    vectors = program.run(batch)
    program.close()
    if not np.isfinite(vectors).all():
        raise UserError("a vector of the self-check holds NaN or Inf: the model's weights overflow")
    return [{"text": text, "vector": [float(f"{x:.8g}") for x in v]} for text, v in zip(CHECK_TEXTS, vectors, strict=True)]


def model_name(encoder: Encoder) -> str:
    """The model's name, without the path of a folder on this machine."""
    path = Path(encoder.model)
    return path.resolve().name if path.exists() else encoder.model


def describe_package(encoder: Encoder) -> JsonObject:
    """package.json, so that the folder can be published or installed as it is."""
    name = re.sub(r"[^a-z0-9._-]+", "-", model_name(encoder).lower()).strip("-._") or "model"
    return {
        "name": f"{name}-web",
        "version": "1.0.0",
        "description": f"Text embeddings with {model_name(encoder)} in the browser",
        "license": "SEE LICENSE IN LICENSE",
        "type": "module",
        "exports": {".": {"types": "./engine.d.ts", "default": "./engine.js"}, "./*": "./*"},
        "types": "./engine.d.ts",
        "files": ["**/*"],
    }


def dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
