"""One text on several cores: the order of its ops, cut so that the cores seldom meet.

A text of few tokens is cut by columns: every linear layer's matrix is divided, so each core reads only a part of the weights.
A longer one is cut by rows: a block of its tokens goes through all ops from one attention to the next, and only there the
cores meet, because a token then reads others. Where it is cut depends on the number of tokens and of cores, never on timing:
the same text gets the same bits every time.
"""

from collections.abc import Mapping

import numpy as np

from .crew import Crew
from .ops import attention, attention_bias, cdiv, linear, linear_add, linear_add_int8, linear_int8
from .ops.self_attention import softmax_attention
from .tensor import Array, Op, Tensor

FEW_TOKENS = 48  # below this, columns: half as many rows would multiply at half the speed
FEWEST_ROWS = 16  # of a block
ROWS_OF_BLOCK = 256  # about so many; BLAS packs a whole matrix for each block, and Python's lock is asked for each of its ops
CHUNK_FLOPS = 1 << 24  # a chunk of columns takes about 0.3 ms, several times what a meeting of two threads costs
ATTENTION: tuple[Op, ...] = (attention, attention_bias)
LINEAR: tuple[Op, ...] = (linear, linear_add, linear_int8, linear_add_int8)
Values = dict[Tensor, Array]


def compute_op(t: Tensor, inputs: list[Array]) -> Array:
    """The output of an op, rounded to its dtype; arrays stay f32."""
    return round_output(t, t.op.reference(*inputs, **t.attrs))  # type: ignore[union-attr]


def round_output(t: Tensor, result: Array) -> Array:
    return result.astype(np.float16).astype(np.float32) if t.dtype == "f16" else result


def compute_text(tensors: list[Tensor], weights: Values, batch: Mapping[str, Array], crew: Crew) -> Array:
    """The last of `tensors`, which are in the order of execution, for a batch of one text."""
    tokens = int(batch["spans"][0, 1])
    given = {t: batch[t.name] for t in tensors if t.op is None and not t.is_weight}
    compute = by_columns if tokens < FEW_TOKENS else by_rows
    return compute(tensors, given | weights, tokens, crew)


# --- few tokens: linear layers by columns


def by_columns(tensors: list[Tensor], values: Values, tokens: int, crew: Crew) -> Array:
    last_reader = {x: t for t in tensors for x in t.inputs}
    with np.errstate(all="ignore"):
        for t in tensors:
            if t.op is None:
                continue
            inputs = [values[x] for x in t.inputs]
            share = share_columns if t.op in LINEAR and len(inputs[0]) == tokens else None
            values[t] = share(t, inputs, crew) if share else compute_op(t, inputs)
            free_inputs(t, values, last_reader)
    return values[tensors[-1]]


def share_columns(t: Tensor, inputs: list[Array], crew: Crew) -> Array:
    """A linear layer: each chunk of columns of its matrix, bias and residual is a layer of its own."""
    x, *rest = inputs
    (T, K), N = x.shape, rest[0].shape[1]
    chunks = column_chunks(T, K, N, crew.size)
    if len(chunks) == 1:
        return compute_op(t, inputs)
    out = np.empty((T, N), np.float32)

    def work(i: int) -> None:
        with np.errstate(all="ignore"):
            out[:, chunks[i]] = compute_op(t, [x, *(a[..., chunks[i]] for a in rest)])

    crew.share(work, len(chunks))
    return out


def column_chunks(T: int, K: int, N: int, cores: int) -> list[slice]:
    """Equal chunks of N columns, one for each core, or fewer where that is too little work."""
    return equal_slices(N, min(cores, max(1, 2 * T * K * N // CHUNK_FLOPS)))


# --- many tokens: blocks of rows from attention to attention


def by_rows(tensors: list[Tensor], values: Values, tokens: int, crew: Crew) -> Array:
    stages, rest = row_stages(tensors)
    blocks = row_blocks_of(tokens, crew.size)
    whole = {x for t in tensors if mixes_rows(t) for x in t.inputs} | {tensors[-1]}  # read beyond a block
    last_reader = {x: t for t in tensors for x in t.inputs}
    local: list[Values] = [{} for _ in blocks]  # what each block has computed and still needs
    for stage in stages:
        for t in stage:
            if t in whole:
                values[t] = np.empty((tokens, int(t.shape[1])), np.float32)

        def work(i: int, stage: list[Tensor] = stage) -> None:
            compute_block(stage, blocks[i], local[i], values, last_reader)

        crew.share(work, len(blocks))
        for t in stage:
            free_inputs(t, values, last_reader)
    with np.errstate(all="ignore"):
        for t in rest:
            values[t] = compute_op(t, [values[x] for x in t.inputs])
            free_inputs(t, values, last_reader)
    return values[tensors[-1]]


def compute_block(stage: list[Tensor], rows: slice, local: Values, values: Values, last_reader: dict[Tensor, Tensor]) -> None:
    """Some rows of every output of a stage. What other blocks will read is written into `values`."""

    def read(x: Tensor) -> Array:
        if x in local:
            return local[x]
        return values[x][rows] if x.shape[0] == "T" else values[x]

    with np.errstate(all="ignore"):
        for t in stage:
            if t.op in ATTENTION:
                qkv, spans, _, *bias = (values[x] for x in t.inputs)
                result = softmax_attention(qkv, spans, bias[0] if bias else None, rows=rows, **t.attrs)
                local[t] = round_output(t, result)
            else:
                local[t] = compute_op(t, [read(x) for x in t.inputs])
            if t in values:
                values[t][rows] = local.pop(t)
            free_inputs(t, local, last_reader)


def mixes_rows(t: Tensor) -> bool:
    """Whether an op reads all rows of a text for one row of its output: attention and pooling get the sequences' spans."""
    return t.op is not None and any(x.shape[0] == "B" and x.op is None for x in t.inputs)


def row_stages(tensors: list[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """The ops with a row per token, in stages, and the ops after them. A row of a stage reads the same row of tensors of any
    stage, and other rows of tensors of earlier stages only."""
    level: dict[Tensor, int] = {}
    rest = []
    for t in tensors:
        if t.op is None:
            continue
        if t.shape[0] == "T":
            level[t] = max((level[x] + mixes_rows(t) for x in t.inputs if x in level), default=0)
        else:
            rest.append(t)
    stages: list[list[Tensor]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for t, stage in level.items():
        stages[stage].append(t)
    return stages, rest


def row_blocks_of(tokens: int, cores: int) -> list[slice]:
    """Equal blocks of about ROWS_OF_BLOCK rows or, for a shorter text, one for each core; always a multiple of the cores."""
    count = cores * max(1, round(tokens / (cores * ROWS_OF_BLOCK)))
    return equal_slices(tokens, min(count, tokens // FEWEST_ROWS), 8)


def equal_slices(size: int, count: int, multiple: int = 16) -> list[slice]:
    """Up to `count` slices of one length, a multiple of `multiple`; the last one may be shorter."""
    step = multiple * cdiv(cdiv(size, max(1, count)), multiple)
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]


def free_inputs(t: Tensor, values: Values, last_reader: dict[Tensor, Tensor]) -> None:
    """Free the results that nothing reads after t."""
    for x in set(t.inputs):
        if last_reader[x] is t and x.op is not None:
            values.pop(x, None)
