# %% [markdown]
# # 4. The MLP and the residual stream
#
# [Attention](03_attention.py) moves information between tokens. The other half of a block, the *MLP*, works on each token alone.
# Both add to the same rows, the *residual stream*, which runs from the embedding to the end. With these two the model is
# complete: at the end of this chapter it fits in thirty lines, and gives the vectors that the engine gives.

# %%
import numpy as np
from safetensors.numpy import load_file
from shared import DATA_SETS, bar_chart, line_chart

from gpt2wgpu import Encoder, cosine_similarity

model = Encoder(device="numpy")
stored = load_file(model.checkpoint.folder / "model.safetensors")
weights = {name: array.astype(np.float64) for name, array in stored.items()}
sentence = "A kitten is napping on the couch"
trace = model.explain(sentence).texts[0]
names = [token.name for token in trace.tokens]

assert trace.states.shape == (6, 8, 256)  # before the first block, and after each of five: 8 rows
# %% [markdown]
# ## The MLP
#
# Norm, a matrix, a curve, a matrix. The first matrix makes 1,024 numbers of a row's 256, the second brings them back. Each of the
# 1,024 asks one question of the row: a column of the first matrix is the question, the row of the second is what is added if the
# answer is yes. The curve between them decides: GELU lets large numbers through and makes nearly nothing of negative ones.


# %%
def layer_norm(rows: np.ndarray, name: str) -> np.ndarray:
    scaled = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(rows: np.ndarray, name: str) -> np.ndarray:
    return rows @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """x times about the probability that a normal variable is below x (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def ask(rows: np.ndarray, block: int) -> np.ndarray:
    """The answers of an MLP, (n, 1024)."""
    return gelu(linear(layer_norm(rows, f"h.{block}.ln_2"), f"h.{block}.mlp.c_fc"))


def mlp(rows: np.ndarray, block: int) -> np.ndarray:
    """What an MLP adds to each row."""
    return linear(ask(rows, block), f"h.{block}.mlp.c_proj")


curve = np.linspace(-4, 3, 141)
assert round(float(gelu(curve).min()), 2) == -0.17 and round(float(gelu(np.array(3.0))), 3) == 2.996
assert weights["h.0.mlp.c_fc.weight"].shape == (256, 1024)
line_chart({"GELU": gelu(curve), "max(x, 0)": np.maximum(curve, 0)}, across=curve, across_name="x")
# %% [markdown]
# GELU makes 2.996 of `3`, and never less than -0.17 of anything. How many of the questions does a token answer with a clear yes?

# %%
answers = ask(trace.states[2], block=2)
clear = dict(zip(names, (answers > 0.1).sum(axis=1).tolist(), strict=True))
per_block = {
    kind: sum(a.size for name, a in weights.items() if name.startswith(f"h.0.{kind}"))
    for kind in ("attn", "mlp")
}

assert answers.shape == (8, 1024) and max(clear.values()) == 61
assert per_block == {"attn": 263168, "mlp": 525568}
bar_chart(clear, digits=0)
# %% [markdown]
# At most 61 of 1,024. The MLP is a large store of which each token opens a few drawers; two thirds of a block's weights
# are in it, 525,568 beside 263,168 of attention.
#
# ## The whole model
#
# Now everything: the rows of the tables, five blocks that add twice, a last norm, the mean over the tokens, length one.


# %%
def attention(rows: np.ndarray, block: int) -> np.ndarray:
    """What attention adds to each row: chapter 3 once more, for all heads at once."""
    qkv = linear(layer_norm(rows, f"h.{block}.ln_1"), f"h.{block}.attn.c_attn")
    queries, keys, values = (p.reshape(len(rows), 4, 64).swapaxes(0, 1) for p in np.split(qkv, 3, axis=1))
    scores = np.where(np.tri(len(rows), dtype=bool), queries @ keys.swapaxes(1, 2) / 8, -np.inf)
    shares = np.exp(scores - scores.max(2, keepdims=True))
    shares /= shares.sum(2, keepdims=True)
    return linear((shares @ values).swapaxes(0, 1).reshape(len(rows), -1), f"h.{block}.attn.c_proj")


def write_stream(text: str, without: str = "") -> dict[str, np.ndarray]:
    """What each part writes to the residual stream, (n, C); parts named `without...` write nothing."""
    (ids,) = model.tokenizer.plain([text])
    written = {"embedding": weights["wte.weight"][ids] + weights["wpe.weight"][: len(ids)]}
    stream = written["embedding"]
    for block in range(5):
        for name, part in (("attention", attention), ("mlp", mlp)):
            if not (without and f"{name} {block + 1}".startswith(without)):
                written[f"{name} {block + 1}"] = part(stream, block)
                stream = stream + written[f"{name} {block + 1}"]
    return written


def embed(text: str, without: str = "") -> np.ndarray:
    """The vector of a text, (C,), of length one."""
    pooled = layer_norm(sum(write_stream(text, without).values()), "ln_f").mean(0)
    return pooled / np.linalg.norm(pooled)


other = "The cat sleeps on the sofa"
difference = abs(embed(sentence) - model.encode(sentence)).max()
print(f"the largest difference to the engine: {difference:.1e}; cosine {embed(sentence) @ embed(other):.4f}")

assert difference < 0.000001
assert round(embed(sentence) @ embed(other), 3) == 0.718
# %% [markdown]
# No number differs by 0.000001: this is the built-in model. Its cosine of the cat and the kitten is 0.718, as in the README. What
# the rest of the package adds is speed, other models, and care.
#
# ## The stream
#
# Nothing is ever overwritten: a token's row at the end is the sum of what was written to it, by the embedding and ten parts.
# `explain` keeps the rows after each block, so that can be checked:

# %%
written = write_stream(sentence)
stream = np.cumsum([*written.values()], axis=0)  # after the embedding, after the first attention, ...

assert stream.shape == (11, 8, 256)
assert abs(stream[8] - trace.states[4]).max() < 1e-7  # four blocks
assert abs(layer_norm(stream[10], "ln_f") - trace.states[5]).max() < 1e-7  # all, and the last norm
assert [round(np.linalg.norm(stream[i, 6]), 1) for i in (0, 10)] == [15.9, 35.8]
assert [round(np.linalg.norm(stream[i, 7]), 1) for i in (0, 10)] == [16.5, 9.8]
line_chart(
    {name: np.linalg.norm(stream[:, i], axis=1) for i, name in enumerate(names)}, across_name="part", digits=0
)
# %% [markdown]
# The picture shows how long each token's row is after each part. All begin alike, and most of that is a vector that all rows have
# in common, from the table of positions. Then they part: "the" grows from 15.9 to 35.8, "couch" shrinks from 16.5 to 9.8. The
# steps are at the MLPs, every second part. In which direction do these write?

# %%
common = weights["wpe.weight"][:8].mean(axis=0)
along = [cosine_similarity(row, common) for row in written["mlp 3"]]

assert round(along[6], 2) == 0.97 and round(along[1], 2) == -0.95
assert (
    round(cosine_similarity(weights["ln_f.bias"], -(common - common.mean()) * weights["ln_f.weight"]), 4)
    == 0.9999
)
bar_chart([*zip(names, along, strict=True)], digits=2)
# %% [markdown]
# The third MLP gives more of the common vector to "the" (cosine 0.97) and takes it from "kitten" (-0.95). Why? The last norm
# divides each row by its size, and its bias is the common vector once more with the opposite sign (0.9999), which takes out what
# all rows have in common. Of a row that holds much of it, next to nothing is left:

# %%
final = layer_norm(stream[10], "ln_f")
vector = final.mean(axis=0)
shares = final @ vector / (len(final) * vector @ vector)  # of the mean's squared length, a sum over tokens

assert abs(shares.sum() - 1) < 1e-12
assert round(np.linalg.norm(final[6]), 2) == 0.70 and round(np.linalg.norm(final[7]), 2) == 6.71
assert [round(share, 2) for share in shares[[1, 3, 4, 6, 7]]] == [0.41, 0.11, 0.02, 0.01, 0.41]
bar_chart([*zip(names, shares, strict=True)], digits=2)
# %% [markdown]
# "the" is 0.70 long at the end and "couch" 6.71. In the mean over the tokens "kitten" and "couch" have 0.41 each, the halves of
# "napping" 0.11 and 0.02, and "the" 0.01. The model ends with a plain mean, and yet it has learnt to weigh its words.
#
# ## Leave something out
#
# What is each part worth? Take one away, or all of its kind, and see how far the vectors of six sentences turn: one minus the
# cosine of the vector without the part and the vector of the whole model. (`attention` and `mlp` are those of all blocks.)

# %%
texts = (DATA_SETS / "meaning.txt").read_text(encoding="utf-8").splitlines()
whole = [embed(text) for text in texts]
parts = [f"{name} {i}" for i in range(1, 6) for name in ("attention", "mlp")]


def turn_without(part: str) -> float:
    """The mean over the texts of one minus the cosine."""
    return 1 - float(np.mean([embed(text, without=part) @ v for text, v in zip(texts, whole, strict=True)]))


turns = {part: turn_without(part) for part in (*parts, "attention", "mlp")}

assert len(texts) == 6 and max(turns[part] for part in parts) == turns["mlp 1"]
assert [round(turns[name], 3) for name in ("mlp 1", "attention", "mlp")] == [0.021, 0.034, 0.120]
bar_chart(turns)
# %% [markdown]
# No single part is needed much; the first MLP most, 0.021. Without any attention the vectors turn by 0.034, without any MLP by
# 0.120. A short sentence is mostly its words, and most of the work here is weighing them.
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/04_mlp_and_residual.py` leaves them out.
#
# 1. Which words of a sentence of yours does the model count, and which does it silence? Try a name, a number, "not".
# 2. Leave out all parts of the first two blocks, then of the last two. Is depth needed in front or at the end?
# 3. Put the last norm's bias at zero, and print the cosines of the six sentences. [Chapter 6](06_anisotropy.py) is about what you
#    will see.
