"""Compares every training kernel on a device with numpy, for `gpt2wgpu doctor`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..devices.graph_check import agreed_kernels, check_graph, plain_attributes, refuse_wrong, remember_agreed
from ..devices.selftest import TOLERANCE, Case, Check, check_op, compare_results
from ..gpu import Device, GPUError, first_reason, read_shader
from ..gpu.device_cache import short_digest
from ..graph import packing
from ..graph.ops import ACTIVATIONS, POOLINGS, attention, embed, linear, pool
from ..graph.tensor import Array, Tensor, schedule
from . import ops
from .gpu import GPUTrainProgram
from .gradients import TrainGraph
from .program import NumpyTrainProgram
from .sums import VECTOR_PART, token_parts

LENGTHS = (1, 5, 33)
LONG_LENGTHS = (1, 530, 33)  # several parts of a sum over tokens


def check_train_graph(device: Device, graph: TrainGraph) -> None:
    """Compare the kernels of a graph in training with numpy, then a step, which runs those of the optimiser; what has agreed
    on this adapter before is not tried again. Raises UserError for the first that is wrong."""
    check_graph(device, [*schedule(graph.inference), *graph.forward, *graph.backward], given_cases)
    optimiser = short_digest("".join(map(read_shader, ("adamw", "average", "square_sum", "row_sum"))))
    if optimiser not in agreed_kernels(device):
        check = check_step(device)
        refuse_wrong(device, check)
        remember_agreed(device, {optimiser: f"training step error {check.error:.1e}"})


def given_cases(t: Tensor) -> list[Case]:
    """Cases of an op whose inputs are results of other ops, with the graph's own attributes, small ones first; none for
    other ops."""
    assert t.op is not None
    own = [int(size) for letter in "CN" if isinstance(size := t.dims.get(letter), int)]
    widths = [68, 70, 192, *own[:1]]  # a multiple of 4, another number, a multiple of 64
    attrs = plain_attributes(t.attrs)
    if t.op is ops.activate_dx:
        return [activate_dx_case(attrs["activation"], width) for width in widths]
    if t.op is ops.dropout:
        return [replace(dropout_case(width), attrs=attrs) for width in widths]
    if t.op in (ops.linear_dweight, ops.sum_parts):
        cases = (case for k, n in ((68, 132), (70, 37)) for case in dweight_cases(k, n, int(t.dims["P"]), LONG_LENGTHS))
        return [case for case in cases if case.op is t.op]
    if t.op in (ops.layer_norm_dx, ops.layer_norm_dweight):
        return [case for width in widths for case in layer_norm_case(width, LONG_LENGTHS) if case.op is t.op]
    if t.op in (ops.sum_rows, ops.sum_vectors):
        return [case for width in widths for case in vector_cases(width, int(t.dims["P"]), LONG_LENGTHS) if case.op is t.op]
    if t.op is ops.scatter_rows:
        return [scatter_rows_case(count, width) for count in (77, 600) for width in widths]  # 600: see FEW_ROWS in gpu/rows.py
    if t.op is ops.attention_dqkv:
        return [attention_cases(int(t.dims["C"]), **attrs, lengths=(1, 70, 17))[1]]
    if t.op is ops.columns:
        return [Case(ops.columns, {"N": int(t.dims["N"])}, attrs=attrs)]
    return []


def check_training(device: Device) -> Iterator[Check]:
    """The kernels of the ops one by one, then a training step, which runs those of the optimiser."""
    for case in backward_cases():
        yield check_op(device, case)
    try:
        yield check_step(device)
    except GPUError as error:
        yield Check("training step", f"T={sum(LENGTHS)}", float("nan"), TOLERANCE["f32"], first_reason(error))


def check_step(device: Device) -> Check:
    """A clipped step of a model of one linear layer: the largest error among weights, moments and the norm of the gradient."""
    ids, positions = Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions")
    spans, skip = Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
    x = embed(ids, positions, Tensor((50, 68), name="wte"), Tensor((max(LENGTHS), 68), name="wpe"))
    y = linear(x, Tensor((68, 72), name="weight"), Tensor((72,), name="bias"), activation="gelu_tanh")
    output = pool(y, spans, skip, mode="mean")
    batch = packing.pack_batch([np.arange(n) % 50 for n in LENGTHS], [np.arange(n) for n in LENGTHS], [0] * len(LENGTHS))
    capacity = {"T": sum(LENGTHS), "B": len(LENGTHS), "G": len(batch["tiles"])}

    def zeros(t: Tensor) -> Array:
        return np.zeros([int(d) for d in t.shape], np.float32)

    results = []
    graph = TrainGraph(output, averaged=True)
    for program in (NumpyTrainProgram(graph, zeros), GPUTrainProgram(device, graph, zeros, capacity)):
        state = program.state()
        state |= {
            name: random_array(1, a.size).reshape(a.shape) ** (1 + name.startswith("v")) for name, a in state.items() if a.shape
        }
        program.load_state(state)  # with moments of zero an update is the sign of a gradient, which rounding can flip
        program.gradients(batch, lambda vectors: (0.0, random_array(*vectors.shape)), 0)
        norm = program.step(0.1, weight_decay=1.0, clip=10.0)
        program.move_average(0.3)
        results.append(program.state() | {"norm": np.array(norm)})
    expected, found = results
    checks = [
        compare_results("training step", f"T={sum(LENGTHS)}", a, found[name], TOLERANCE["f32"]) for name, a in expected.items()
    ]
    return max(checks, key=lambda check: check.error)


def backward_cases() -> list[Case]:
    """Every op, on sizes that no tile size divides."""
    return [
        Case(ops.add, {"C": 70}),
        *(Case(ops.activate, {"C": 70}, attrs={"activation": a}) for a in ACTIVATIONS),
        *(activate_dx_case(a, 70) for a in ACTIVATIONS if a != "none"),
        dropout_case(70),
        *(Case(ops.transpose, {"K": k, "N": n}) for k, n in ((68, 132), (70, 37))),
        *(Case(ops.matmul, {"K": k, "N": n}) for k, n in ((68, 132), (70, 37))),
        *(case for k, n in ((68, 132), (70, 37)) for case in dweight_cases(k, n, 4, LONG_LENGTHS)),
        *(case for width in (68, 70) for case in vector_cases(width, 4, LONG_LENGTHS)),
        *layer_norm_case(68, LONG_LENGTHS),
        *(c for d in (10, 64) for causal in (True, False) for c in attention_cases(3 * d, d, causal, (1, 70, 17))),
        *attention_cases(80, 20, True, (1, 70, 17), window=20, kv_heads=2),
        scatter_rows_case(77, 52),
        *(Case(ops.pool_dx, {"C": 68}, attrs={"mode": mode}) for mode in POOLINGS),
        Case(ops.columns, {"N": 70}, attrs={"M": 33, "first": 36}),
        Case(ops.l2_normalize_dx, {"C": 68}),
    ]


# --- ops that take results of other ops


def activate_dx_case(activation: str, width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    x = 3 * random_array(sum(lengths), width)
    x[0, 0] = 0
    given = {"x": x, "y": ops.activate.reference(x, activation=activation)}
    return Case(ops.activate_dx, {"C": width}, lengths, {"activation": activation}, given=given)


def dweight_cases(k: int, n: int, parts: int, lengths: Sequence[int]) -> list[Case]:
    """Both ops of the gradient of a weight (k, n), in up to `parts` parts."""
    given = {"parts": random_array(parts * k, n).reshape(parts, k, n)}
    given["parts"][len(token_parts(sum(lengths), parts)) :] = 0  # without tokens
    return [
        Case(ops.linear_dweight, {"K": k, "N": n}, lengths, {"P": parts}),
        Case(ops.sum_parts, {"P": parts, "K": k, "N": n}, lengths, {"T": sum(lengths)}, given=given),
    ]


def vector_cases(width: int, parts: int, lengths: Sequence[int]) -> list[Case]:
    """Both ops of the gradient of a bias, in up to `parts` parts."""
    given = {"parts": random_array(parts, width)}
    given["parts"][len(token_parts(sum(lengths), parts, VECTOR_PART)) :] = 0  # without tokens
    return [
        Case(ops.sum_rows, {"C": width}, lengths, {"P": parts}),
        Case(ops.sum_vectors, {"P": parts, "C": width}, lengths, {"T": sum(lengths)}, given=given),
    ]


def dropout_case(width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    given = {"tokens": np.arange(sum(lengths), dtype=np.uint32), "seed": np.array([0xFFFFFFFF], np.uint32)}
    return Case(ops.dropout, {"C": width}, lengths, {"threshold": 3 << 30, "scale": 4.0, "site": 5}, given=given)


def layer_norm_case(width: int, lengths: Sequence[int] = LENGTHS, parts: int = 4) -> list[Case]:
    x = random_array(sum(lengths), width) + 2
    given = {"x": x, "stats": ops.layer_norm_stats.reference(x, eps=1e-5)}
    return [
        Case(ops.layer_norm_stats, {"C": width}, lengths, {"eps": 1e-5}),
        Case(ops.layer_norm_dx, {"C": width}, lengths, given=given),
        Case(ops.layer_norm_dweight, {"C": width}, lengths, {"P": parts}, given=given),
    ]


def attention_cases(
    width: int,
    head_size: int,
    causal: bool,
    lengths: Sequence[int],
    window: int = 0,
    kv_heads: int = 0,
    scale: float = 0.3,
) -> list[Case]:
    """Both ops of attention's backward pass. width: columns of all queries of a token. window, kv_heads: as in the op."""
    attrs = {"head_size": head_size, "scale": scale, "causal": causal, "window": window, "kv_heads": kv_heads}
    heads = width // head_size
    row = width + 2 * (kv_heads or heads) * head_size
    empty = [np.zeros(n) for n in lengths]
    batch = packing.pack_batch(empty, empty, [0] * len(lengths))
    qkv, on = random_array(sum(lengths), row), (batch["spans"], batch["tiles"])
    lse = ops.attention_lse.reference(qkv, *on, **attrs)
    given = {"qkv": qkv, "out": attention.reference(qkv, *on, **attrs), "lse": lse}
    return [
        Case(ops.attention_lse, {"N": row}, lengths, attrs),
        Case(ops.attention_dqkv, {"N": row, "C": width, "H": heads}, lengths, attrs, given=given),
    ]


def scatter_rows_case(count: int, width: int, lengths: Sequence[int] = LENGTHS) -> Case:
    taken = np.random.default_rng(0).integers(count, size=sum(lengths))
    taken[: len(taken) // 2] = taken[0]
    order, rows = ops.sorted_rows(taken, count)
    return Case(ops.scatter_rows, {"V": count, "C": width}, lengths, given={"order": order, "rows": rows})


def random_array(rows: int, width: int) -> Array:
    return np.random.default_rng(1).standard_normal((rows, width), dtype=np.float32)
