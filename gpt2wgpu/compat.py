"""sentence-transformers' keywords: accepted, accepted without effect, or refused with what to use instead."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from .devices.choose import device_name
from .errors import UserError, between, is_text, show
from .vectors.quantize import check_precision

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings", None)
INSTEAD = {  # what to use instead of entries of model_kwargs and the like
    "torch_dtype": "dtype='float32', 'float16' or 'int8'",
    "dtype": "dtype='float32', 'float16' or 'int8'",
    "device_map": "device=",
    "model_max_length": "max_seq_length=",
    "max_length": "max_seq_length=",
    "num_hidden_layers": "layer=",
}


class ModelKeywords(TypedDict, total=False):
    """Keywords of SentenceTransformer that `Encoder` accepts in addition to its own."""

    model_name_or_path: str | Path | None  # another name for `model`
    use_auth_token: str | bool | None  # another name for `token`
    trust_remote_code: bool
    backend: str
    model_kwargs: Mapping[str, Any] | None
    processor_kwargs: Mapping[str, Any] | None
    tokenizer_kwargs: Mapping[str, Any] | None
    config_kwargs: Mapping[str, Any] | None
    modules: object
    model_card_data: object


class VectorOptions(TypedDict, total=False):
    """Keywords of the calls that encode, except prompts. The last five are accepted where they change nothing."""

    batch_size: int | None
    show_progress_bar: bool | None
    normalize_embeddings: bool
    truncate_dim: int | None
    truncate: bool
    precision: str | None
    device: object
    pool: object
    chunk_size: int | None
    task: str | None
    processing_kwargs: object


class OutputOptions(VectorOptions, total=False):
    """Keywords of the calls that can also return tensors, or more than a vector for each text."""

    output_value: str | None
    convert_to_numpy: bool
    convert_to_tensor: bool


def check_model_name(model: object) -> None:
    """Raises UserError for a model that is neither a name nor a folder, such as one that is open already."""
    if model is not None and not isinstance(model, str | os.PathLike):
        kind = type(model).__name__
        raise UserError(f"model must be a folder or a name on the hub, not a {kind}: save a model to a folder and open that")


def check_prompts(prompts: object) -> dict[str, str]:
    """Prompts by name, with None replaced by "". Raises UserError."""
    if not isinstance(prompts, Mapping):
        raise UserError(f"prompts must be a dict of names and texts, not {show(prompts, 40)}")
    for name, text in prompts.items():
        if not isinstance(name, str) or not (text is None or is_text(text)):
            raise UserError(f"prompts holds {show(name, 40)}: {show(text, 40)}, expected a name and a text")
    return {name: text or "" for name, text in prompts.items()}


def check_model_keywords(given: ModelKeywords) -> None:
    """Raise UserError, saying what to use instead, for a keyword without an equivalent here; TypeError for an unknown one."""
    if unknown := given.keys() - ModelKeywords.__annotations__.keys():
        raise TypeError(f"Encoder() got an unexpected keyword argument {min(unknown)!r}")
    if given.get("trust_remote_code"):
        raise UserError("trust_remote_code=True: a repository's own code is never run here; use a model that needs none")
    if given.get("backend", "torch") != "torch":
        raise UserError(f"backend={given['backend']!r}: leave it out; device='gpu' or 'numpy' says what computes")
    for name in ("model_kwargs", "processor_kwargs", "tokenizer_kwargs", "config_kwargs"):
        entries: Mapping[str, Any] = given.get(name) or {}  # type: ignore[assignment] # the name is one of four
        for entry in entries:
            advice = f"use {INSTEAD[entry]}" if entry in INSTEAD else "put what it stands for into the model's folder"
            raise UserError(f"{name} holds {show(entry)}, which goes to transformers there: {advice}")
    for name in ("modules", "model_card_data"):
        if given.get(name) is not None:
            raise UserError(f"{name} holds objects of sentence-transformers: save that model to a folder and open the folder")


class Asked(TypedDict):
    """The fields of EncodeOptions that depend on a call's keywords alone."""

    show_progress_bar: bool
    precision: str
    output_value: str | None
    container: str


def read_options(given: OutputOptions, on_device: bool) -> Asked:
    """The keywords of a call, checked. Raises UserError for what cannot be done here, TypeError for unknown names."""
    if unknown := given.keys() - VectorOptions.__annotations__.keys() - OutputOptions.__annotations__.keys():
        raise TypeError(f"encode() got an unexpected keyword argument {min(unknown)!r}")
    if (size := given.get("batch_size")) is not None:
        between("batch_size", size, 1, 1 << 24)
    if (dims := given.get("truncate_dim")) is not None:
        between("truncate_dim", dims, 1, 1 << 24)
    if given.get("pool") is not None:
        raise UserError("pool: one Encoder uses all cores, or the whole GPU; leave it out")
    if (device := given.get("device")) is not None and device_name(device) not in ("auto", "gpu" if on_device else "numpy"):
        raise UserError(f"device={show(device)}: an Encoder stays where it was opened; open another one with device=")
    if given.get("processing_kwargs"):
        raise UserError("processing_kwargs go to transformers' tokenizer: use max_seq_length to cut texts")
    check_precision(precision := given.get("precision") or "float32")
    value = given.get("output_value", "sentence_embedding")
    if value not in OUTPUT_VALUES:
        raise UserError(f"output_value must be one of {', '.join(map(repr, OUTPUT_VALUES))}, not {value!r}")
    if (bar := given.get("show_progress_bar")) is None:
        bar = logging.getLogger(__name__).getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    container = "tensor" if given.get("convert_to_tensor") else "numpy" if given.get("convert_to_numpy", True) else "list"
    return Asked(show_progress_bar=bar, precision=precision, output_value=value, container=container)
