# %% [markdown]
# # 3. Attention by hand
#
# A row of the table knows its token, not its sentence ([chapter 2](02_embeddings.py)). Attention is where tokens look at each
# other. Here is the first attention of the built-in model on one sentence, in numpy, with the real weights, step by step; at the
# end it is compared with what the engine computes.

# %%
import numpy as np
from safetensors.numpy import load_file
from shared import heat_map

from gpt2wgpu import Encoder, cosine_similarity
from gpt2wgpu.graph import ops

model = Encoder(device="numpy")
stored = load_file(model.checkpoint.folder / "model.safetensors")
weights = {name: array.astype(np.float64) for name, array in stored.items()}
sentence = "A kitten is napping on the couch"
trace = model.explain(sentence).texts[0]
ids, names = [token.id for token in trace.tokens], [token.name for token in trace.tokens]
n = len(ids)
print(*names)

assert n == 8 and names[4] == "pping"
# %% [markdown]
# ## In: a row for each token
#
# The input is the row of each token in the table of tokens, plus the row of its place in a table of positions: 8 rows of 256
# numbers. Everything in the model is such an array, one row for each token.

# %%
token_rows = weights["wte.weight"][ids]
position_rows = weights["wpe.weight"][:n]
x = token_rows + position_rows

assert x.shape == (8, 256)
assert round(np.linalg.norm(position_rows[0]), 1) == 15.9
assert round(cosine_similarity(position_rows[0], position_rows[7]), 3) == 0.998
# %% [markdown]
# The position rows are 15.9 long and nearly equal: the first and the last have a cosine of 0.998. This model makes little of
# the place of a word. [Chapter 6](06_anisotropy.py) says what the large common part does.
#
# ## Norm
#
# A layer begins by bringing each row to one scale: subtract the row's mean, divide by its standard deviation, then stretch and
# shift each column by learned weights. Otherwise the sizes of numbers would drift from layer to layer.


# %%
def layer_norm(rows: np.ndarray, name: str) -> np.ndarray:
    """Each row with mean 0 and variance 1, times the weight, plus the bias (Ba et al. 2016)."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


normed = layer_norm(x, "h.0.ln_1")
assert normed.shape == x.shape
# %% [markdown]
# ## Queries, keys, values
#
# Three products make three new rows of each row:
#
# - a *query*: what this token looks for,
# - a *key*: what this token offers to be found by,
# - a *value*: what it hands over to those who look.
#
# One matrix holds all three side by side. The columns are then cut into heads, each of which looks for something else.

# %%
qkv = normed @ weights["h.0.attn.c_attn.weight"] + weights["h.0.attn.c_attn.bias"]
heads = 4
queries, keys, values = (part.reshape(n, heads, -1).swapaxes(0, 1) for part in np.split(qkv, 3, axis=1))

assert qkv.shape == (8, 768) and queries.shape == keys.shape == values.shape == (4, 8, 64)
# %% [markdown]
# So there are 4 heads, and in each 8 queries, keys and values of 64 numbers. From here on we watch one head, the second.
#
# ## Scores
#
# How well does a query fit a key? Their product says it. It is a sum of 64 terms, which grows with their number, so it is divided
# by the root of that, 8. Each row below is a token that looks, each column one that is looked at.

# %%
head = 1  # counted from zero
scores = queries[head] @ keys[head].T / np.sqrt(64)
compared = scores - scores.mean(axis=1, keepdims=True)

assert np.sqrt(64) == 8 and scores.shape == (8, 8)
assert scores.max() < -50 and round(compared[7, 1], 1) == 5.8 and round(compared[7, 6], 1) == -4.7
heat_map(compared, names, names, digits=1)
# %% [markdown]
# The scores themselves are all below -50, because the position rows have so much in common. Only differences within a row will
# matter, so the picture shows each score minus the mean of its row. To "couch", "kitten" is 5.8 above the mean and "the" 4.7
# below it. All rows look the same: whoever asks, this head finds the words that carry the content.
#
# ## Only what was said before
#
# GPT-2 reads from left to right: a token may look at itself and at what stands before it. What comes later gets the score minus
# infinity. The *softmax* then turns a row of scores into shares: `exp` of each, divided by their sum. Every row sums to 1.

# %%
masked = np.where(np.tri(n, dtype=bool), scores, -np.inf)
shares = np.exp(masked - masked.max(axis=1, keepdims=True))  # the largest is taken off: exp cannot overflow
shares /= shares.sum(axis=1, keepdims=True)

assert abs(shares.sum(axis=1) - 1).max() < 1e-12 and shares[0, 0] == 1
kitten, na, the, couch = 1, 3, 6, 7  # their places
assert [names[i] for i in (kitten, na, the, couch)] == ["␣kitten", "␣na", "␣the", "␣couch"]
assert [round(shares[couch, i], 2) for i in (kitten, na, couch)] == [0.47, 0.13, 0.40]
assert round(shares[the, kitten], 2) == 0.78
heat_map(shares, names, names)
# %% [markdown]
# The first token sees only itself, so its share is 1. "the" takes 0.78 of what it reads from "kitten". "couch" takes 0.47 from
# "kitten", 0.13 from the first half of "napping" and 0.40 from itself, and next to nothing from "is", "on" and "the".
#
# ## Take the values
#
# Each token now gets the mean of the values, weighted by its shares. All four heads do so, their results are put side by side,
# and one more matrix mixes them. The result is not put in the place of the row: it is *added* to it.


# %%
def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, causal: bool = True) -> np.ndarray:
    """The heads' results side by side, (n, C), of queries, keys and values (H, n, D)."""
    scores = queries @ keys.swapaxes(1, 2) / np.sqrt(keys.shape[2])
    if causal:
        scores = np.where(np.tri(len(scores[0]), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    return (shares @ values).swapaxes(0, 1).reshape(len(values[0]), -1)


mixed = attend(queries, keys, values)
written = mixed @ weights["h.0.attn.c_proj.weight"] + weights["h.0.attn.c_proj.bias"]
after = x + written
lengths, added = np.linalg.norm(x, axis=1), np.linalg.norm(written, axis=1)
for name, before, length in zip(names, lengths, added, strict=True):
    print(f"{name:8} is {before:.1f} long, attention added {length:.2f}")

assert abs(mixed[couch, 64:128] - shares[couch] @ values[head]).max() < 1e-12
assert lengths.min() > 15 and 0.1 < added.min() < added.max() < 0.25
# %% [markdown]
# That is all of it: one short function, and a matrix before and after. What this first attention adds is small, 0.1 to 0.25, on
# rows that are longer than 15. Most of that length is the part that all rows share.
#
# ## Is it what the engine computes?
#
# `explain` follows a sentence through the engine in float64 and keeps the shares of every head; `ops.attention` is the function
# in numpy that every kernel for a GPU is compared with.

# %%
by_engine = trace.attention[0, head]
as_op = ops.attention.reference(
    qkv.astype(np.float32),
    np.array([[0, n]]),  # one text, from token 0 to n
    np.array([[0, 0]]),  # the work list of a GPU; numpy does not read it
    head_size=64,
    scale=1 / 8,
    causal=True,
)
print(f"shares differ by {abs(shares - by_engine).max():.1e}, results by {abs(mixed - as_op).max():.1e}")

assert abs(x - trace.states[0]).max() == 0
assert abs(shares - by_engine).max() < 1e-10
assert abs(mixed - as_op).max() < 0.0001
# %% [markdown]
# The input is the same to the last bit, a difference of 0, and the results differ by less than 0.0001, the rounding of float32.
#
# ## How does attention know the order?
#
# Not by itself: a weighted mean does not ask in which order its parts stand. The mask and the position rows tell the order. Give
# every token the same position, and compare the sums of what the tokens read, with the mask and without:

# %%
differences = {}
for causal in (False, True):
    sums = []
    for text in ("The dog bit the man", "The man bit the dog"):
        (text_ids,) = model.tokenizer.plain([text])
        rows = layer_norm(weights["wte.weight"][text_ids] + weights["wpe.weight"][0], "h.0.ln_1")
        text_qkv = rows @ weights["h.0.attn.c_attn.weight"] + weights["h.0.attn.c_attn.bias"]
        parts = (part.reshape(5, heads, -1).swapaxes(0, 1) for part in np.split(text_qkv, 3, axis=1))
        sums.append(attend(*parts, causal=causal).sum(axis=0))
    differences[causal] = abs(sums[0] - sums[1]).max()
    print(f"{'with' if causal else 'without'} the mask the sums differ by {differences[causal]:.1g}")

assert differences[False] < 1e-9 and differences[True] > 0.5
# %% [markdown]
# Without the mask who bit whom is lost; with it, some number differs by more than 0.5.
#
# ## Twenty heads
#
# The model has five blocks of four heads. This is what the last token, "couch", reads in each of them:

# %%
last = trace.attention[:, :, -1].reshape(-1, n)
labels = [f"block {i // heads + 1} head {i % heads + 1}" for i in range(len(last))]

assert last.shape == (20, 8)
assert round(last[17, kitten], 2) == 1.0 and round(last[18, na], 2) == 0.98
assert round(last[labels.index("block 4 head 1"), couch], 2) == 0.83
heat_map(last, labels, names)
# %% [markdown]
# In the last block the second head gives 1.00 to "kitten" and the third 0.98 to "napping": one asks who, the other what was done.
# In block four a head keeps 0.83 at the token itself. But take care: the pictures show where a head looks, not what it does with
# what it sees. How much each head adds to the similarity of two sentences can be computed exactly, and is surprisingly little:
# `gpt2wgpu explain "A kitten is napping on the couch" "The cat sleeps on the sofa"` prints it.
#
# The other half of a block, and the way of a token through all five, is [chapter 4](04_mlp_and_residual.py).
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/03_attention.py` leaves them out.
#
# 1. Do the heads of the last block find who and what in a sentence of yours? Try one in the passive.
# 2. Divide the scores by one instead of eight, or by a hundred. What happens to the shares, and to `entropy`, the sum of
#    `-share * log(share)` of a row?
# 3. Set `causal` to false everywhere. Which tokens change most, the first or the last?
