"""The modules after the transformer: sentence-transformers' modules.json and the files of the modules that it lists.

Supported: the format of version 6.2, and the older ones that it reads.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError, show
from ..models.fields import Fields, read_fields, read_json
from .tensors import Tensors


@dataclass(frozen=True)
class Pooling:
    """Hidden states of a text's tokens -> one vector; several modes are concatenated in order."""

    modes: tuple[str, ...]  # each one of ops.POOLINGS
    include_prompt: bool = True


@dataclass(frozen=True)
class Dense:
    """activation(x @ weight + bias), with weights f"{name}.linear.weight" (inputs, outputs) and f"{name}.linear.bias"."""

    name: str  # its folder
    inputs: int
    outputs: int
    activation: str  # one of ops.ACTIVATIONS


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation with weights f"{name}.layer_norm.weight" and f"{name}.layer_norm.bias", both (width,)."""

    name: str  # its folder
    width: int


@dataclass(frozen=True)
class Normalize:
    """x / |x|"""


Module = Pooling | Dense | LayerNorm | Normalize

MODES = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "sqrt_len_mean"}
MODES |= {"weightedmean": "weighted_mean", "lasttoken": "last"}
# the older format has a flag per mode; sentence-transformers concatenates in this order
MODE_FLAGS = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"}
MODE_FLAGS |= {"weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken"}
DENSE_ACTIVATIONS = {"Identity": "none", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu_erf", "SiLU": "silu", "Sigmoid": "sigmoid"}
DENSE_ACTIVATIONS |= {"ReLU6": "relu6", "LeakyReLU": "leaky_relu", "ELU": "elu", "CELU": "elu"}
MODULE_KINDS = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")


def read_modules(path: Path) -> list[tuple[str, str]]:
    """(kind, folder inside the model folder) for each entry of modules.json, the transformer first. Raises UserError.

    Only the first and last parts of a type are compared: those in between differ from version to version. A class that
    does not come from sentence-transformers is the repository's own code, whatever its name.
    """
    file = path / "modules.json"
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"{show(file)} holds {show(entries)}, expected a list of objects: download it again")
    modules, names = [], set()
    for entry in entries:
        fields = Fields(file, entry)
        fields.refuse_unknown(("idx", "name", "path", "type", "kwargs"))
        name, folder = fields.text("type"), fields.text("path", default="")
        kind = name.rsplit(".", 1)[-1]
        if not name.startswith("sentence_transformers.") or kind not in MODULE_KINDS:
            raise fields.refuse("type", f"sentence_transformers' {', '.join(MODULE_KINDS)}: no others are supported")
        parts = PurePosixPath(folder).parts
        is_inside = not folder.startswith("/") and ".." not in parts and not any(c in folder for c in "\\:")
        if not is_inside or not folder.isprintable() or len(folder) > 255:
            raise fields.refuse("path", "a folder inside the model folder")
        if (label := str(entry.get("name"))) in names:
            raise fields.refuse("name", "another name: sentence-transformers keeps the last module of a name only")
        names |= {label} - {"None"}
        modules.append((kind, "/".join(parts)))
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") > 1 or kinds.count("Pooling") > 1:
        raise UserError(f"{show(file)} lists {show(kinds)}, expected Transformer, Pooling, then {', '.join(MODULE_KINDS[2:])}")
    return modules


def open_modules(path: Path, listed: list[tuple[str, str]], width: int) -> tuple[tuple[Module, ...], dict[str, Tensors]]:
    """The modules after the transformer, whose width is given, and the checked tensors of each folder that has some."""
    modules: list[Module] = []
    tensors: dict[str, Tensors] = {}
    for kind, name in listed:
        file = path / name / "config.json"
        if kind == "Pooling":
            modules.append(pooling := read_pooling(read_fields(file)))
            width *= len(pooling.modes)
        elif kind == "Dense":
            module, tensors[name] = read_dense(read_fields(file), name, width)
            modules.append(module)
            width = module.outputs
        elif kind == "LayerNorm":
            tensors[name] = read_layer_norm(read_fields(file), name, width)
            modules.append(LayerNorm(name, width))
        elif kind == "Normalize":  # its folder may not exist
            fields = read_fields(file, optional=True)
            check_feature_names(fields)
            fields.refuse_unknown()
            modules.append(Normalize())
        else:  # Dropout, which only has an effect in training
            read_fields(file, optional=True).refuse_unknown(("dropout",))
    return tuple(modules), tensors


def default_pooling(config: Fields) -> Pooling:
    """The pooling that sentence-transformers chooses for a folder without modules.json: the last token for decoders."""
    found = config.value("architectures")
    name = found[0] if isinstance(found, list) and found else None
    is_decoder = isinstance(name, str) and name.endswith("ForCausalLM") and config.flag("is_causal", default=True)
    return Pooling(("last" if is_decoder else "mean",))


def read_pooling(fields: Fields) -> Pooling:
    """A Pooling module. Its width is not checked: sentence-transformers only reports it."""
    fields.integer("embedding_dimension", "word_embedding_dimension")
    modes = fields.value("pooling_mode")
    flagged = [mode for mode, flag in MODE_FLAGS.items() if fields.flag(f"pooling_mode_{flag}", default=False)]
    if modes is None:
        modes = flagged or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(isinstance(mode, str) and mode in MODES for mode in modes):
        raise fields.refuse("pooling_mode", f"one or a list of {', '.join(MODES)}")
    include_prompt = fields.flag("include_prompt", default=True)
    fields.refuse_unknown()
    return Pooling(tuple(MODES[mode] for mode in modes), include_prompt)


def read_dense(fields: Fields, name: str, width: int) -> tuple[Dense, Tensors]:
    """A Dense module and its checked tensors. width: of its input. Raises UserError."""
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
    has_bias = fields.flag("bias", default=True)
    fields.refuse_unknown()
    tensors = Tensors(fields.path.parent)
    tensors.check("linear.weight", (outputs, inputs), f"{name}/config.json")
    if has_bias:
        tensors.check("linear.bias", (outputs,), f"{name}/config.json")
    elif "linear.bias" in tensors.entries:
        raise fields.refuse("bias", "true, as its weights have a linear.bias")
    tensors.refuse_others("linear.weight", "linear.bias")
    return Dense(name, inputs, outputs, DENSE_ACTIVATIONS[match[1]]), tensors


def read_layer_norm(fields: Fields, name: str, width: int) -> Tensors:
    """The checked tensors of a LayerNorm module. width: of its input. Raises UserError."""
    if fields.integer("dimension") != width:
        raise fields.refuse("dimension", f"{width}, which the module before it gives")
    fields.refuse_unknown()
    tensors = Tensors(fields.path.parent)
    for part in ("norm.weight", "norm.bias"):
        tensors.check(part, (width,), f"{name}/config.json")
    tensors.refuse_others("norm.weight", "norm.bias")
    return tensors


def check_feature_names(fields: Fields) -> None:
    """Refuse a Dense or Normalize that reads or writes anything but the sentence's vector."""
    for name in ("module_input_name", "module_output_name"):
        if fields.text(name, default="sentence_embedding") != "sentence_embedding":
            raise fields.refuse(name, '"sentence_embedding"')
