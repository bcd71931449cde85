"""The files of sentence-transformers: what follows the transformer, and how texts are prepared.

Followed: version 6.2 and the older formats that it reads.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError, is_text, show
from ..models.fields import Fields, read_fields, read_json
from .tensors import Tensors


@dataclass(frozen=True)
class Pooling:
    """Hidden states of a text's tokens -> one vector; several modes are concatenated in order."""

    modes: tuple[str, ...]  # of ops.POOLINGS
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """activation(x @ weight + bias), with weights f"{name}.linear.weight" (inputs, outputs) and f"{name}.linear.bias"."""

    name: str  # its folder
    inputs: int
    outputs: int
    activation: str  # of ops.ACTIVATIONS


@dataclass(frozen=True)
class Normalize:
    """x / |x|"""


Module = Pooling | Dense | Normalize

MODES = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "sqrt_len_mean"}
MODES |= {"weightedmean": "weighted_mean", "lasttoken": "last"}
# the older format has a flag per mode; sentence-transformers concatenates in this order
FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
DENSE_ACTIVATIONS = {"Identity": "none", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu_erf", "SiLU": "silu", "Sigmoid": "sigmoid"}
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
LENGTH_FILES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def read_modules(path: Path) -> list[tuple[str, str]]:
    """(kind, folder inside the model folder) for each entry of modules.json, the transformer first.

    Only the ends of a type are looked at: the path between them has changed between versions. A class that does not come from
    sentence-transformers is the repository's own code, whatever it is called.
    """
    file = path / "modules.json"
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"{show(file)} holds {show(entries)}, expected a list of objects: download it again")
    modules = []
    for entry in entries:
        fields = Fields(file, entry)
        name, folder = fields.text("type"), fields.text("path", default="")
        kind = name.rsplit(".", 1)[-1]
        if not name.startswith("sentence_transformers.") or kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise fields.refuse(
                "type", "sentence_transformers' Transformer, Pooling, Dense or Normalize: no others are supported"
            )
        parts = PurePosixPath(folder).parts
        if folder.startswith("/") or ".." in parts or any(c in folder for c in "\\:") or not folder.isprintable():
            raise fields.refuse("path", "a folder inside the model folder")
        modules.append((kind, "/".join(parts)))
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") > 1 or kinds.count("Pooling") > 1:
        raise UserError(f"{show(file)} lists {show(kinds)}, expected Transformer, Pooling, then Dense and Normalize")
    return modules


def default_pooling(config: Fields) -> Pooling:
    """Of a folder that is none of sentence-transformers', by its config.json: last token for decoders, as there."""
    found = config.values.get("architectures")
    name = found[0] if isinstance(found, list) and found else None
    is_decoder = isinstance(name, str) and name.endswith("ForCausalLM") and config.flag("is_causal", default=True)
    return Pooling(("last" if is_decoder else "mean",))


def read_pooling(fields: Fields, width: int) -> Pooling:
    found = fields.integer("embedding_dimension", "word_embedding_dimension")
    if found != width:
        name = "embedding_dimension" if fields.present("embedding_dimension") else "word_embedding_dimension"
        raise fields.refuse(name, f"{width}, the width of the model")
    modes = fields.values.get("pooling_mode")
    if modes is None:
        flags = [flag for flag in FLAGS if fields.flag(f"pooling_mode_{flag}", default=False)]
        modes = [flag.removesuffix("_tokens") if flag != "mean_sqrt_len_tokens" else flag for flag in flags]
        modes = [mode.removesuffix("_token") for mode in modes] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(isinstance(mode, str) and mode in MODES for mode in modes):
        raise fields.refuse("pooling_mode", f"one or a list of {', '.join(MODES)}")
    return Pooling(tuple(MODES[mode] for mode in modes), fields.flag("include_prompt", default=True))


def read_dense(fields: Fields, name: str, width: int) -> tuple[Dense, Tensors]:
    """A Dense module, whose tensors are checked, and its tensors. `width` is what comes in."""
    check_feature_names(fields)
    if fields.flag("use_residual", default=False):
        raise fields.refuse("use_residual", "false: residual Dense modules are not supported")
    inputs, outputs = fields.integer("in_features"), fields.integer("out_features")
    if inputs != width:
        raise fields.refuse("in_features", f"{width}, which the module before it gives")
    function = fields.text("activation_function", default="torch.nn.modules.activation.Tanh")
    match = re.fullmatch(r"torch\.nn\.(?:\w+\.)*(\w+)", function)
    if match is None or match[1] not in DENSE_ACTIVATIONS:
        raise fields.refuse("activation_function", f"one of torch.nn's {', '.join(DENSE_ACTIVATIONS)}")
    tensors = Tensors(fields.path.parent)
    tensors.check("linear.weight", (outputs, inputs), f"{name}/config.json")
    if fields.flag("bias", default=True):
        tensors.check("linear.bias", (outputs,), f"{name}/config.json")
    elif "linear.bias" in tensors.entries:
        raise fields.refuse("bias", "true, as its weights have a linear.bias")
    return Dense(name, inputs, outputs, DENSE_ACTIVATIONS[match[1]]), tensors


def check_feature_names(fields: Fields) -> None:
    """Dense and Normalize can work on token embeddings or write elsewhere; ours work on the sentence's."""
    for name in ("module_input_name", "module_output_name"):
        if fields.text(name, default="sentence_embedding") != "sentence_embedding":
            raise fields.refuse(name, '"sentence_embedding"')


def read_text_settings(folder: Path, limit: int, sentence_model: bool) -> tuple[int, bool]:
    """(max_seq_length, do_lower_case) of the transformer in `folder`, whose position table has room for `limit` tokens."""
    files = (folder / f"sentence_{name}_config.json" for name in LENGTH_FILES)
    file = next((f for f in files if sentence_model and f.exists()), None)
    fields = read_fields(file) if file else Fields(folder / "sentence_bert_config.json", {})
    for name in ("query_length", "document_length", "query_expansion"):
        if fields.present(name):
            raise fields.refuse(name, "none: models with one vector per token are not supported")
    if fields.text("transformer_task", default="feature-extraction") != "feature-extraction":
        raise fields.refuse("transformer_task", '"feature-extraction"')
    if fields.text("module_output_name", default="token_embeddings") != "token_embeddings":
        raise fields.refuse("module_output_name", '"token_embeddings"')
    options = fields.object("processing_kwargs", default={})
    if any(options.get(kind) for kind in ("text", "common")):
        raise fields.refuse("processing_kwargs", "none: options for the tokenizer are not supported")
    length = limit
    if fields.present("max_seq_length"):
        length = fields.integer("max_seq_length")
    else:
        tokenizer = read_fields(folder / "tokenizer_config.json", optional=True)
        if tokenizer.present("model_max_length"):  # an integer, or something like 1e30 for "no limit"
            length = math.floor(min(tokenizer.number("model_max_length"), limit))
            if length < 1:
                raise tokenizer.refuse("model_max_length", "a positive integer")
    return min(length, limit), fields.flag("do_lower_case", default=False)


@dataclass(frozen=True)
class SentenceSettings:
    """config_sentence_transformers.json"""

    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None


def read_settings(fields: Fields) -> SentenceSettings:
    if fields.text("model_type", default="SentenceTransformer") != "SentenceTransformer":
        raise fields.refuse("model_type", '"SentenceTransformer": other kinds of model are not supported')
    prompts = {name: "" if text is None else text for name, text in fields.object("prompts", default={}).items()}
    if not all(map(is_text, prompts.values())):
        raise fields.refuse("prompts", "an object of strings")
    default = fields.text("default_prompt_name", default="") or None
    if default in ("query", "document"):  # sentence-transformers always has these two
        prompts.setdefault(default, "")
    if default is not None and default not in prompts:
        raise fields.refuse("default_prompt_name", f"one of the prompts: {show(sorted(prompts))}")
    similarity = fields.text("similarity_fn_name", default="cosine")
    if similarity not in SIMILARITIES:
        raise fields.refuse("similarity_fn_name", f"one of {', '.join(SIMILARITIES)}")
    dims = fields.integer("truncate_dim") if fields.present("truncate_dim") else None
    return SentenceSettings(prompts, default, similarity, dims)
