"""The whole graph of an embedding model: a transformer's hidden state, then the modules that turn it into vectors."""

from collections.abc import Sequence

from ..errors import UserError
from ..graph import ops
from ..graph.int8 import graph_to_int8
from ..graph.tensor import Tensor, merge_graphs
from . import Checkpoint, Dense, LayerNorm, Pooling
from .modules import Module


def default_layer(c: Checkpoint) -> int:
    """The last layer for a sentence-transformers folder; otherwise the architecture's default."""
    return c.config.layers if c.sentence_model else c.config.default_layer


def choose_modules(c: Checkpoint, pooling: str | None) -> tuple[Module, ...]:
    """The modules after the transformer, with another pooling if one is asked for. Raises UserError for an unknown one."""
    if pooling is None:
        return c.modules
    if pooling not in ops.POOLINGS:
        raise UserError(f"pooling must be one of {', '.join(ops.POOLINGS)}, not {pooling!r}")
    include = all(m.include_prompt for m in c.modules if isinstance(m, Pooling))
    return (Pooling((pooling,), include), *c.modules[1:])


def build_graph(c: Checkpoint, layer: int, operand_dtype: str, after: Sequence[Module], *, int8: bool = False) -> Tensor:
    """The whole graph, from the tokens of packed texts to vectors (B, C).

    layer: how many of the transformer's blocks run. operand_dtype: "f32" or "f16", the dtype of matrices and of what they are
    multiplied with. after: the modules that follow. int8: store the transformer's matrices in int8. Raises UserError if
    sizes do not fit.
    """
    x = c.config.hidden(layer, operand_dtype)
    x = graph_to_int8(x) if int8 else x
    spans, skip = Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
    for m in after:
        if isinstance(m, Pooling):
            pooled = [ops.pool(x, spans, skip, mode=mode) for mode in m.modes]
            x = pooled[0]
            for more in pooled[1:]:
                x = ops.concat(x, more)
        elif isinstance(m, Dense):
            check_width(x, m.inputs, m.name)
            weight = Tensor((m.inputs, m.outputs), name=f"{m.name}.linear.weight")
            x = ops.linear(x, weight, Tensor((m.outputs,), name=f"{m.name}.linear.bias"), activation=m.activation)
        elif isinstance(m, LayerNorm):
            check_width(x, m.width, m.name)
            weight, bias = (Tensor((m.width,), name=f"{m.name}.layer_norm.{part}") for part in ("weight", "bias"))
            x = ops.layer_norm(x, weight, bias, eps=1e-5)  # torch's default, which no file changes
        else:
            x = ops.l2_normalize(x)
    return x


def check_width(x: Tensor, inputs: int, name: str) -> None:
    """Raise UserError if the caller's pooling gives a module another width than its weights have."""
    if x.shape[1] != inputs:
        raise UserError(f"{name} takes {inputs} inputs, the pooling gives {x.shape[1]}: choose another pooling")


def concat_layers(outputs: Sequence[Tensor]) -> Tensor:
    """The vectors (B, C) of several graphs side by side, (B, sum of C); common parts of the graphs are computed once."""
    x, *others = merge_graphs(outputs)
    for more in others:
        x = ops.concat(x, more)
    return x


def describe_graph(c: Checkpoint, layer: int, modules: Sequence[Module]) -> dict[str, str | int]:
    """The rows of the model card on the checkpoint, the layer that is used and the modules after it."""
    layers = c.config.layers
    why = {layers: "the last", 0: "the embeddings"}.get(layer, f"blocks 1 to {layer} are run")
    if layer == default_layer(c) != layers:
        why = f"the middle, the default for a {c.config.title} without a sentence-transformers folder"
    pooling = " + ".join(mode for m in modules if isinstance(m, Pooling) for mode in m.modes)
    then = [type(m).__name__ + (f" {m.outputs}" if isinstance(m, Dense) else "") for m in modules[1:]]
    return {
        "architecture": c.architecture,
        "layers": layers,
        "layer used": f"{layer} of {layers} ({why})",
        "width": c.config.width,
        "heads": c.config.heads,
        "vocabulary": c.config.vocab,
        "parameters": c.parameters,
        "pooling": " then ".join([pooling, *then]),
    }
