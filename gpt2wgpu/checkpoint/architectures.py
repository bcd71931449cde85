"""config.json -> GPT2Config or BertConfig, and where in the files each weight of their graphs comes from."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import UserError
from ..graph import Tensor, schedule
from ..jsonfile import Fields, show
from ..models.bert import BertConfig, bert
from ..models.gpt2 import GPT2Config, gpt2
from ..ops import Array
from .tensors import FLOATS, Tensors, is_finite

Config = GPT2Config | BertConfig
DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16)}

ARCHITECTURES = ("gpt2", "bert", "roberta", "xlm-roberta", "camembert")
ACTIVATIONS = {"gelu": "gelu_erf", "gelu_python": "gelu_erf", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh"}
ACTIVATIONS |= dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), "gelu_tanh")

# --- config.json


def read_config(fields: Fields) -> tuple[str, Config]:
    """The model_type and its configuration. Raises UserError on anything that our graphs do not compute."""
    architecture = fields.text("model_type", default="")
    if architecture not in ARCHITECTURES:
        raise fields.refuse("model_type", f"one of {', '.join(ARCHITECTURES)}: other architectures are not supported")
    for name in ("add_cross_attention", "is_decoder") if architecture != "gpt2" else ("add_cross_attention",):
        if fields.flag(name, default=False):
            raise fields.refuse(name, "false: only encoders of one text are supported")
    if fields.present("quantization_config"):
        raise fields.refuse("quantization_config", "none: save the model in f32 or f16")
    config = gpt2_config(fields) if architecture == "gpt2" else bert_config(fields, padded=architecture != "bert")
    if config.width % config.heads:
        name = "n_head" if architecture == "gpt2" else "num_attention_heads"
        raise fields.refuse(name, f"a divisor of the width, {config.width}")
    return architecture, config


def gpt2_config(fields: Fields) -> GPT2Config:
    default = GPT2Config()
    width = fields.integer("n_embd", "hidden_size", default=default.width)
    if not fields.flag("is_causal", default=True):
        raise fields.refuse("is_causal", "true: GPT-2 attends to earlier tokens only")
    return GPT2Config(
        layers=fields.integer("n_layer", "num_hidden_layers", default=default.layers),
        heads=fields.integer("n_head", "num_attention_heads", default=default.heads),
        width=width,
        inner=fields.integer("n_inner", default=4 * width),
        context=fields.integer("n_positions", "max_position_embeddings", "n_ctx", default=default.context),
        vocab=fields.integer("vocab_size", default=default.vocab),
        activation=activation(fields, "activation_function", "gelu_new"),
        eps=fields.number("layer_norm_epsilon", default=default.eps),
        scale_attention=fields.flag("scale_attn_weights", default=True),
        scale_by_layer=fields.flag("scale_attn_by_inverse_layer_idx", default=False),
    )  # reorder_and_upcast_attn asks for attention in f32, which ours always is


def bert_config(fields: Fields, padded: bool) -> BertConfig:
    """`padded`: RoBERTa and its kin, whose positions count from pad_token_id + 1."""
    default = BertConfig()
    if fields.text("position_embedding_type", default="absolute") != "absolute":
        raise fields.refuse("position_embedding_type", '"absolute": relative positions are not supported')
    context = fields.integer("max_position_embeddings", default=default.context)
    pad = fields.integer("pad_token_id", default=1, least=0) if padded else None
    if pad is not None and context - pad - 1 < 1:
        raise fields.refuse("max_position_embeddings", f"more than pad_token_id + 1, which is {pad + 1}")
    return BertConfig(
        layers=fields.integer("num_hidden_layers", default=default.layers),
        heads=fields.integer("num_attention_heads", default=default.heads),
        width=fields.integer("hidden_size", default=default.width),
        inner=fields.integer("intermediate_size", default=default.inner),
        context=context,
        vocab=fields.integer("vocab_size", default=default.vocab),
        types=fields.integer("type_vocab_size", default=default.types),
        activation=activation(fields, "hidden_act", "gelu"),
        eps=fields.number("layer_norm_eps", default=default.eps),
        pad=pad,
    )


def activation(fields: Fields, name: str, default: str) -> str:
    if (found := fields.text(name, default=default)) not in ACTIVATIONS:
        raise fields.refuse(name, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[found]


def usable_length(config: Config) -> int:
    """How many tokens the position table has room for."""
    pad = config.pad if isinstance(config, BertConfig) else None
    return config.context if pad is None else config.context - pad - 1


def hidden(config: Config, layer: int, half: str) -> Tensor:
    return gpt2(config, layer, half) if isinstance(config, GPT2Config) else bert(config, layer, half)


# --- weights

# what heads and training leave in the files; anything else inside the transformer is refused, lest a LoRA or a layer be dropped
GPT2_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
BERT_BUFFERS = re.compile(r"embeddings\.(position_ids|token_type_ids)")
GPT2_BODY = re.compile(r"(wte|wpe|h|ln_f)\.")
BERT_BODY = re.compile(r"(embeddings|encoder)\.")
POSITIONS, TYPES = "embeddings.positions_and_type.weight", "embeddings.token_type_embeddings.weight"


class Body:
    """The transformer's weights in the files, as its graph names them."""

    def __init__(self, config: Config, tensors: Tensors) -> None:
        """Checks all names, shapes and types, from headers only. Raises UserError."""
        self.config, self.tensors = config, tensors
        is_gpt2 = isinstance(config, GPT2Config)
        table = "wte.weight" if is_gpt2 else "embeddings.word_embeddings.weight"
        prefixes = ("", "transformer.") if is_gpt2 else ("", "bert.", "roberta.", "camembert.", "xlm_roberta.")
        self.prefix = next((p for p in prefixes if p + table in tensors.entries), "")

        self.parameters = 0
        known = set()
        last = f"h.{config.layers - 1}.ln_1.weight" if is_gpt2 else f"encoder.layer.{config.layers - 1}.output.dense.bias"
        # the tables and the last block first: then the graph has the size of the file, whatever config.json claims
        self._check(table, (config.vocab, config.width))
        self._check(last, (config.width,))
        for leaf in schedule(hidden(config, config.layers, "f32")):
            for name, shape in parts(config, leaf) if leaf.is_weight else ():
                self._check(name, shape)
                self.parameters += int(np.prod(shape))
                known.add(self._stored(name))
        body, buffers = (GPT2_BODY, GPT2_BUFFERS) if is_gpt2 else (BERT_BODY, BERT_BUFFERS)
        for name in tensors.entries.keys() - known:
            inside = name.removeprefix(self.prefix)
            if name.startswith(self.prefix) and body.match(inside) and not buffers.fullmatch(inside):
                expected = f"{config.layers} layers with the tensors of {'GPT2Model' if is_gpt2 else 'BertModel'} only"
                raise UserError(f"{show(tensors.folder)}: unexpected tensor {show(name)}, expected {expected} (config.json)")

    def weights(self, leaf: Tensor) -> Array:
        """The values of a weight of the graph: its shape, its dtype, laid out (in, out)."""
        arrays = [self.tensors.read(self._stored(name)) for name, _ in parts(self.config, leaf)]
        if leaf.name == POSITIONS:
            positions, types = arrays
            return cast(positions.astype(np.float32) + types[0].astype(np.float32), leaf)
        if is_linear(self.config, leaf):  # torch's Linear holds (out, in)
            arrays = [a.T for a in arrays]
        return cast(arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1), leaf)

    def beside(self) -> dict[str, Array]:
        """Copies, f32, of what `transformers` expects in the files and no text's vector depends on: the pooler, and the
        differences of the token types from type 0, which is part of `POSITIONS`."""
        entries = self.tensors.entries.items()
        names = [n.removeprefix(self.prefix) for n, e in entries if n.startswith(f"{self.prefix}pooler.") and e.dtype in FLOATS]
        found = {name: self.tensors.read(self.prefix + name).astype(np.float32) for name in names}
        if isinstance(self.config, BertConfig):
            types = self.tensors.read(self._stored(TYPES)).astype(np.float32)
            found[TYPES] = types - types[0]
        return found

    def _stored(self, name: str) -> str:
        """The name in the files: with a prefix, or with the names that LayerNorm had in TensorFlow."""
        old = re.sub(r"LayerNorm\.(weight|bias)$", lambda m: "LayerNorm." + {"weight": "gamma", "bias": "beta"}[m[1]], name)
        return self.prefix + (old if self.prefix + name not in self.tensors.entries and old != name else name)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        stored = self._stored(name)
        if stored not in self.tensors.entries:
            stored = self.prefix + name
        self.tensors.check(stored, shape, "config.json")


def parts(c: Config, leaf: Tensor) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the files of what a weight of the graph is made of."""
    shape = tuple(int(d) for d in leaf.shape)
    if isinstance(c, BertConfig) and leaf.name == POSITIONS:
        yield "embeddings.position_embeddings.weight", shape
        yield TYPES, (c.types, c.width)
    elif isinstance(c, BertConfig) and ".self.qkv." in leaf.name:
        for name in ("query", "key", "value"):
            yield leaf.name.replace(".qkv.", f".{name}."), (c.width,) * len(shape)
    else:
        yield leaf.name, shape[::-1] if is_linear(c, leaf) else shape


def is_linear(c: Config, leaf: Tensor) -> bool:
    """GPT-2's Conv1D weights are (in, out) in the file already."""
    return isinstance(c, BertConfig) and len(leaf.shape) == 2 and not leaf.name.startswith("embeddings.")


def as_in_files(c: Config, name: str, array: Array) -> dict[str, Array]:
    """A weight of the graph as the files hold it, the inverse of `Body.weights`; names have no prefix. Token type 0 stays in
    the table of positions, so that reading the files again gives the same bits: `Body.beside` has types whose row 0 is zero."""
    leaf = Tensor(array.shape, name=name)
    names = [part for part, _ in parts(c, leaf)]
    if name == POSITIONS:
        return {names[0]: array}
    arrays = np.split(array, len(names), axis=-1)
    return {part: a.T if is_linear(c, leaf) else a for part, a in zip(names, arrays, strict=True)}


def cast(array: Array, leaf: Tensor) -> Array:
    """`array` contiguous and in the weight's dtype. Raises UserError where f16 is too small for a value."""
    with np.errstate(over="ignore", under="ignore"):
        result = np.ascontiguousarray(array, DTYPES[leaf.dtype])
    if result.dtype == np.float16 and array.dtype != np.float16 and not is_finite(result):
        raise UserError(f"tensor {leaf.name} holds values above 65504, the largest in f16: use f32 for this model")
    return result
