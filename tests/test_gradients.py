"""Gradients in numpy: every op mid-graph against float64 finite differences."""

import numpy as np
import pytest

from gpt2wgpu import UserError
from gpt2wgpu.graph import ops, packing, reference
from gpt2wgpu.graph.tensor import Array, Tensor, op, schedule
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train.gradients import SEED, TOKENS, VJP, gradients

LENGTHS = (3, 1, 4)
T, B = sum(LENGTHS), len(LENGTHS)
SYMBOLS = {"T": T, "B": B}
SPANS, SKIP = Tensor(("B", 2), "u32", "spans"), Tensor(("B",), "u32", "skip")
TILES = Tensor(("G", 2), "u32", "tiles")


@op("x[T,C] -> out[T,C]", grid=lambda p: (1, 1, 1))
def bend(x: Array) -> Array:
    """What comes before and after the op under test: nothing is linear, so nothing can be forgotten."""
    return x + 0.3 * x**2


@op("x[T,C] dout[T,C] -> dx[T,C]", grid=lambda p: (1, 1, 1))
def bend_dx(x: Array, dout: Array) -> Array:
    return dout * (1 + 0.6 * x)


@pytest.fixture(autouse=True)
def bend_has_a_gradient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(VJP, bend.name, lambda t, dout: (bend_dx(t.inputs[0], dout),))


def leaf(name: str, *shape: int | str) -> Tensor:
    return Tensor(shape, name=name)


def batch() -> dict[str, Array]:
    ids, positions = [[2, 0, 2], [4], [2, 4, 4, 1]], [[0, 1, 2], [0], [0, 1, 2, 1]]
    found = packing.pack_batch([np.array(i) for i in ids], [np.array(p) for p in positions], [1, 0, 2])
    found |= {"tokens": np.arange(T, dtype=np.uint32), "seed": np.array([7], np.uint32)}
    for name, count in (("ids", 6), ("positions", 3)):
        found[f"{name}_order"], found[f"{name}_rows"] = train_ops.sorted_rows(found[name], count)
    return found


X = leaf("x", "T", 12)
GRAPHS = {
    "linear": lambda: ops.linear(bend(X), leaf("w", 12, 5), leaf("b", 5)),
    "linear_add": lambda: ops.linear_add(bend(X), leaf("w", 12, 12), leaf("b", 12), X),
    "layer_norm": lambda: ops.layer_norm(bend(X), leaf("w", 12), leaf("b", 12), eps=1e-3),
    "embed": lambda: ops.embed(
        Tensor(("T",), "u32", "ids"), Tensor(("T",), "u32", "positions"), leaf("w", 6, 4), leaf("b", 3, 4)
    ),
    "l2_normalize": lambda: ops.l2_normalize(leaf("x", "B", 12)),
    "concat": lambda: ops.concat(bend(X), ops.concat(X, leaf("y", "T", 1))),
    "add": lambda: train_ops.add(bend(X), X),
    "dropout": lambda: train_ops.dropout(bend(X), TOKENS, SEED, threshold=1 << 31, scale=2.0, site=3),
}
GRAPHS |= {f"activate {a}": lambda a=a: train_ops.activate(bend(X), activation=a) for a in ops.ACTIVATIONS if a != "none"}
GRAPHS |= {f"pool {mode}": lambda m=mode: ops.pool(bend(X), SPANS, SKIP, mode=m) for mode in ops.POOLINGS}
GRAPHS |= {
    f"attention {causal} {size}": lambda c=causal, s=size: ops.attention(bend(X), SPANS, TILES, head_size=s, scale=0.7, causal=c)
    for causal in (True, False)
    for size in (1, 2, 4)
}
GRAPHS |= {
    f"attention {causal} window {window} kv_heads {kv}": lambda c=causal, w=window, kv=kv: ops.attention(
        bend(X), SPANS, TILES, head_size=2, scale=0.7, causal=c, window=w, kv_heads=kv
    )
    for causal in (True, False)
    for window, kv in ((1, 0), (2, 2), (3, 1), (0, 1), (0, 2))
}


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_against_finite_differences(name: str):
    """The gradient of sum(seed * bend(op(...))) in each input, in float64. The fitted GELU itself is 6e-7 off the exact one."""
    output = bend(GRAPHS[name]())
    seed = Tensor(output.shape, name="doutput")
    leaves = {t for t in schedule(output) if t.op is None and t.dtype == "f32"}
    rng = np.random.default_rng(0)
    values = batch() | {
        t.name: rng.standard_normal([SYMBOLS.get(d, d) for d in t.shape]) for t in sorted([*leaves, seed], key=lambda t: t.name)
    }
    found = gradients(output, seed, leaves)
    assert set(found) == leaves

    def run(t: Tensor) -> Array:
        return reference.NumpyProgram(t, lambda t: values[t.name]).run(values)

    for t, g in found.items():
        a = values[t.name]
        numeric = np.empty_like(a)
        for i in np.ndindex(a.shape):
            kept = a[i]
            sides = []
            for a[i] in (kept + 1e-5, kept - 1e-5):
                sides.append((run(output) * values["doutput"]).sum())
            a[i] = kept
            numeric[i] = (sides[0] - sides[1]) / 2e-5
        analytic = run(g)
        assert analytic.dtype == np.float64
        assert np.abs(numeric - analytic).max() / np.abs(numeric).max() < (3e-5 if "gelu_erf" in name else 1e-7), t.name


def test_long_sequences_in_windows_and_with_shared_keys():
    """Several blocks of queries: the gradient of plain attention on the same scores, with keys repeated and the rest hidden."""
    n, size, heads = 150, 2, 4
    rng = np.random.default_rng(0)
    q, dout = rng.standard_normal((2, n, heads, size))
    k, v = rng.standard_normal((2, n, 2, size))
    on = np.array([[0, n]]), np.zeros((0, 2))
    for causal in (True, False):
        for window in (0, 70):
            attrs = {"head_size": size, "scale": 0.5, "causal": causal, "window": window, "kv_heads": 2}
            qkv = np.concatenate([x.reshape(n, -1) for x in (q, k, v)], axis=1)
            out = ops.attention.reference(qkv, *on, **attrs)
            lse = train_ops.attention_lse.reference(qkv, *on, **attrs)
            found = train_ops.attention_dqkv.reference(qkv, out, dout.reshape(n, -1), lse, *on, **attrs)
            i, j = np.indices((n, n))
            hidden = (causal & (j > i)) | ((abs(i - j) > window) & (window > 0))
            expected = [np.zeros_like(x) for x in (q, k, v)]
            for h in range(heads):
                a, b, c, d = q[:, h], k[:, h // 2], v[:, h // 2], dout[:, h]
                p = np.exp(np.where(hidden, -np.inf, a @ b.T * 0.5))
                p /= p.sum(1, keepdims=True)
                ds = p * (d @ c.T - (d * (p @ c)).sum(1, keepdims=True)) * 0.5
                for whole, part, at in zip(expected, (ds @ b, ds.T @ a, p.T @ d), (h, h // 2, h // 2), strict=True):
                    whole[:, at] += part
            np.testing.assert_allclose(found, np.concatenate([x.reshape(n, -1) for x in expected], axis=1), rtol=1e-9, atol=1e-12)


def test_a_bias_by_distance_is_refused():
    output = ops.attention_bias(bend(X), SPANS, TILES, leaf("b", 2, 3), head_size=2, scale=0.7, causal=False)
    with pytest.raises(UserError, match="a model with attention_bias cannot be trained: this op has no gradient"):
        gradients(output, Tensor(output.shape, name="doutput"), {X})


def test_a_weight_that_is_used_twice_is_refused():
    """Micro-batches would add to one of its two gradients only. Frozen, it has none."""
    w, b = leaf("w", 12, 12), leaf("b", 12)
    output = ops.linear(ops.linear(X, w, leaf("b1", 12)), w, b)
    seed = Tensor(output.shape, name="doutput")
    with pytest.raises(UserError, match=r"^a model that uses the weight w twice cannot be trained: freeze it$"):
        gradients(output, seed, {w, b})
    assert set(gradients(output, seed, {b})) == {b}
