# %% [markdown]
# # 4. The MLP and the residual stream
#
# [Attention](03_attention.py) moves information between tokens. The other half of a block, the *MLP*, works on each token alone.
# Both add to the same rows, the *residual stream*, which runs from the embedding to the end. With these two the model is
# complete: at the end of this chapter it fits in thirty lines, and gives the vectors that the engine gives.

# %%
from math import erf

import numpy as np
from safetensors.numpy import load_file
from shared import DATA_SETS, bar_chart, line_chart

from gpt2wgpu import Encoder, cosine_similarity

model = Encoder(device="numpy")
stored = load_file(model.checkpoint.folder / "model.safetensors")
weights = {name: array.astype(np.float64) for name, array in stored.items()}
for name, scales in stored.items():
    if name.endswith("_scale"):  # int8, as in chapter 2
        weights[name.removesuffix("_scale")] *= np.repeat(scales, 64, axis=int(name.startswith("wte")))
sentence = "A kitten is napping on the couch"
trace = model.explain(sentence).texts[0]
names = [token.name for token in trace.tokens]

assert trace.states.shape == (7, 10, 384)  # before the first block, and after each of six: 10 rows
# %% [markdown]
# Three functions are those of [chapter 3](03_attention.py), here for all heads at once:


# %%
def layer_norm(rows: np.ndarray, name: str) -> np.ndarray:
    scaled = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(rows: np.ndarray, name: str) -> np.ndarray:
    return rows @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(rows: np.ndarray, block: int) -> np.ndarray:
    """What attention adds to each row."""
    qkv = linear(layer_norm(rows, f"h.{block}.ln_1"), f"h.{block}.attn.c_attn")
    queries, keys, values = (p.reshape(len(rows), 12, 32).swapaxes(0, 1) for p in np.split(qkv, 3, axis=1))
    scores = queries @ keys.swapaxes(1, 2) / np.sqrt(32)
    shares = np.exp(scores - scores.max(2, keepdims=True))
    shares /= shares.sum(2, keepdims=True)
    return linear((shares @ values).swapaxes(0, 1).reshape(len(rows), -1), f"h.{block}.attn.c_proj")


x = trace.states[2]  # after two blocks
x = x + attention(x, block=2)  # what the third MLP reads

assert x.shape == (10, 384)
# %% [markdown]
# ## The MLP
#
# Norm, a matrix, a curve, a matrix. The first matrix makes 1,024 numbers of a row's 384, the second brings them back. Each of the
# 1,024 asks one question of the row: a column of the first matrix is the question, the row of the second is what is added if the
# answer is yes. The curve between them decides: GELU lets large numbers through and makes nearly nothing of negative ones.


# %%
def gelu(x: np.ndarray) -> np.ndarray:
    """x times the probability that a normal variable is below x (Hendrycks & Gimpel 2016). GPT-2 itself approximates it."""
    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def ask(rows: np.ndarray, block: int) -> np.ndarray:
    """The answers of an MLP, (n, 1024)."""
    return gelu(linear(layer_norm(rows, f"h.{block}.ln_2"), f"h.{block}.mlp.c_fc"))


def mlp(rows: np.ndarray, block: int) -> np.ndarray:
    """What an MLP adds to each row."""
    return linear(ask(rows, block), f"h.{block}.mlp.c_proj")


curve = np.linspace(-4, 3, 141)
assert round(float(gelu(curve).min()), 2) == -0.17 and round(float(gelu(np.array(3.0))), 3) == 2.996
assert weights["h.0.mlp.c_fc.weight"].shape == (384, 1024)
line_chart({"GELU": gelu(curve), "max(x, 0)": np.maximum(curve, 0)}, across=curve, across_name="x")
# %% [markdown]
# GELU makes 2.996 of `3`, and never less than -0.17 of anything. How many questions of the third MLP does a token answer with
# a clear yes?

# %%
answers = ask(x, block=2)
clear = dict(zip(names, (answers > 0.1).sum(axis=1).tolist(), strict=True))
per_block = {
    kind: sum(a.size for name, a in stored.items() if name.startswith(f"h.0.{kind}") and "_scale" not in name)
    for kind in ("attn", "mlp")
}

assert answers.shape == (10, 1024) and max(clear.values()) == clear["on"] == 189
assert (clear["kitten"], clear["couch"], clear["[CLS]"]) == (95, 107, 6)
assert per_block == {"attn": 591360, "mlp": 787840}
bar_chart(clear, digits=0)
# %% [markdown]
# At most 189 of 1,024, for "on"; "kitten" and "couch" answer 95 and 107, and `[CLS]` only 6. The MLP is a large store of which
# each token opens some drawers; more than half of a block's weights are in it, 787,840 beside 591,360 of attention.
#
# ## The whole model
#
# Now everything: the rows of the tables, six blocks that add twice, a last norm, the mean over the tokens, length one.


# %%
def write_stream(text: str, without: str = "") -> dict[str, np.ndarray]:
    """What each part writes to the residual stream, (n, C); parts named `without...` write nothing."""
    (ids,), _ = model.tokenizer.encode([text], model.max_seq_length)
    written = {"embedding": weights["wte.weight"][ids] + weights["wpe.weight"][: len(ids)]}
    stream = written["embedding"]
    for block in range(6):
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
assert round(embed(sentence) @ embed(other), 3) == 0.792
# %% [markdown]
# No number differs by 0.000001: this is the built-in model. Its cosine of the cat and the kitten is 0.792, as in the README. What
# the rest of the package adds is speed, other models, and care.
#
# ## The stream
#
# Nothing is ever overwritten: a token's row at the end is the sum of what was written to it, by the embedding and twelve parts.
# `explain` keeps the rows after each block, so that can be checked:

# %%
written = write_stream(sentence)
stream = np.cumsum([*written.values()], axis=0)  # after the embedding, after the first attention, ...
lengths = np.linalg.norm(stream, axis=2)

assert stream.shape == (13, 10, 384)
assert abs(stream[8] - trace.states[4]).max() < 0.0001  # four blocks
assert abs(layer_norm(stream[12], "ln_f") - trace.states[6]).max() < 0.0001  # all, and the last norm
assert [round(x) for x in lengths[[1, 2], 0]] == [14, 60] and round(lengths[2, 1:].max()) == 7
assert lengths[12].min() > 110
shown = ("[CLS]", "kitten", "is", "the", "couch", "[SEP]")
line_chart({name: lengths[:, names.index(name)] for name in shown}, across_name="part", digits=0)
# %% [markdown]
# The picture shows how long the rows of six tokens are after each part. `[CLS]` grows from 14 to 60 in the first MLP, where no
# other is longer than about 7. The others grow late; at the end all are longer than 110. What stands in the giant row, and what
# is it for?

# %%
giant = stream[6, 0]  # [CLS] after three blocks
number = int(abs(giant).argmax())
elsewhere = sum([*write_stream(other).values()][:7])[0]
to_first = trace.attention[3, :, 1:, 0].mean()  # fourth block, all heads, from all others to [CLS]
values = linear(layer_norm(stream[6], "h.3.ln_1"), "h.3.attn.c_attn")[:, 768:].reshape(10, 12, 32)
value_lengths = np.linalg.norm(values, axis=2).mean(axis=1)

assert number == 99 and cosine_similarity(giant, np.eye(384)[number]) > 0.99
assert cosine_similarity(giant, elsewhere) > 0.999
assert round(to_first, 1) == 0.6 and round(value_lengths[0], 1) == 0.6 and value_lengths[1:].min() > 3
bar_chart([*zip(names, value_lengths, strict=True)], digits=1)
# %% [markdown]
# One number, number 99, is nearly all of it (cosine above 0.99), and in another sentence the row is the same (above 0.999). So it
# says nothing about the text. But the others give it 0.6 of their attention in the fourth block, and take next to nothing:
# its values are 0.6 long there, all others more than 3, as the picture shows. The shares of a head must sum to one, and a head
# that finds nothing looks where nothing is: an *attention sink* ([Xiao et al. 2023](https://arxiv.org/abs/2309.17453)). What the
# giant does to means of the rows is in [chapter 6](06_anisotropy.py).
#
# ## A mean that weighs
#
# The model ends with a plain mean over the tokens. Do all count alike?

# %%
final = layer_norm(stream[12], "ln_f")
vector = final.mean(axis=0)
shares = final @ vector / (len(final) * vector @ vector)  # of the mean's squared length, a sum over tokens
loudest = int(abs(stream[12]).max(axis=0).argmax())
kitten, the = names.index("kitten"), names.index("the")

assert abs(shares.sum() - 1) < 1e-12
assert loudest == 127 and [round(abs(stream[12, i, loudest])) for i in (the, kitten)] == [221, 3]
assert round(lengths[12, the]) == 263 and round(weights["ln_f.weight"][loudest], 2) == 0
assert [round(np.linalg.norm(final[i]), 1) for i in (the, kitten)] == [3.7, 8.5]
assert [round(shares[i], 2) for i in (the, kitten)] == [0.07, 0.16]
bar_chart([*zip(names, shares, strict=True)], digits=2)
# %% [markdown]
# No: "kitten" has 0.16 of the mean and "the" 0.07. The row of "the" is 263 long before the last norm, and number 127 alone is 221
# of that; of "kitten" it is 3. The norm divides each row by its size, and then multiplies number 127 by a weight of 0.00. It is
# not seen at the end, but it has made all other numbers of its row smaller: "the" is 3.7 long and "kitten" 8.5. So a plain mean
# weighs its words after all.
#
# ## Leave something out
#
# What is each part worth? Take one away, or all of its kind, and see how far the vectors of six sentences turn: one minus the
# cosine of the vector without the part and the vector of the whole model. (`attention` and `mlp` are those of all blocks.)

# %%
texts = (DATA_SETS / "meaning.txt").read_text(encoding="utf-8").splitlines()
whole = [embed(text) for text in texts]
parts = [f"{name} {i}" for i in range(1, 7) for name in ("attention", "mlp")]


def turn_without(part: str) -> float:
    """The mean over the texts of one minus the cosine."""
    return 1 - float(np.mean([embed(text, without=part) @ v for text, v in zip(texts, whole, strict=True)]))


turns = {part: turn_without(part) for part in (*parts, "attention", "mlp")}
needed = ("attention 6", "mlp 1", "mlp 5", "mlp 6")

assert len(texts) == 6 and max(turns[part] for part in parts) == turns["attention 6"]
assert [round(turns[name], 2) for name in needed] == [0.33, 0.15, 0.11, 0.10]
assert [round(turns[name], 2) for name in ("attention", "mlp")] == [0.53, 0.74]
assert max(turns[part] for part in parts if part not in needed) < 0.07
bar_chart(turns)
# %% [markdown]
# The last attention is needed most, 0.33, then the first MLP, 0.15, and the last two, 0.11 and 0.10. The other eight parts cost
# less than 0.07 each. Without any attention the vectors turn by 0.53, without any MLP by 0.74: these are other vectors.
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/04_mlp_and_residual.py` leaves them out.
#
# 1. Which words of a sentence of yours does the model count, and which does it make small? Try a name, a number, "not".
# 2. Leave out all parts of the first two blocks, then of the last two. Is depth needed in front or at the end?
# 3. Put the number that the last norm drops at zero in every row, and print the cosines of the six sentences with and without it.
