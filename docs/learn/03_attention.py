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
for name, scales in stored.items():
    if name.endswith("_scale"):  # int8 as in chapter 2; a matrix has scales for every 64 rows
        weights[name.removesuffix("_scale")] *= np.repeat(scales, 64, axis=int(name.startswith("wte")))
sentence = "A kitten is napping on the couch"
trace = model.explain(sentence).texts[0]
ids, names = [token.id for token in trace.tokens], [token.name for token in trace.tokens]
n = len(ids)
print(*names)

assert n == 10 and names[5] == "##ping"
# %% [markdown]
# ## In: a row for each token
#
# The input is the row of each token in the table of tokens, plus the row of its place in a table of positions: 10 rows of 384
# numbers. Everything in the model is such an array, one row for each token.

# %%
token_rows = weights["wte.weight"][ids]
position_rows = weights["wpe.weight"][:n]
x = token_rows + position_rows

assert x.shape == (10, 384)
assert round(np.linalg.norm(token_rows[2]), 1) == 5.4 and round(np.linalg.norm(position_rows[2]), 1) == 1.3
near, far = (cosine_similarity(position_rows[2], position_rows[i]) for i in (3, -1))
assert round(near, 2) == 0.77 and round(far, 2) == 0.05
# %% [markdown]
# The row of "kitten" is 5.4 long, that of its place 1.3: what a word is counts more than where it stands. Places side by side
# have similar rows, places far apart do not: the third and the fourth have a cosine of 0.77, the third and the last 0.05. Nobody
# arranged that; it was learnt.
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
heads = 12


def linear(rows: np.ndarray, name: str) -> np.ndarray:
    return rows @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def split_heads(qkv: np.ndarray) -> list[np.ndarray]:
    """Queries, keys and values, (H, n, D) each."""
    return [part.reshape(len(qkv), heads, -1).swapaxes(0, 1) for part in np.split(qkv, 3, axis=1)]


qkv = linear(normed, "h.0.attn.c_attn")
queries, keys, values = split_heads(qkv)

assert qkv.shape == (10, 1152) and queries.shape == keys.shape == values.shape == (12, 10, 32)
# %% [markdown]
# So there are 12 heads, and in each 10 queries, keys and values of 32 numbers. From here on we watch one head, the second.
#
# ## Scores
#
# How well does a query fit a key? Their product says it. It is a sum of 32 terms, which grows with their number, so it is divided
# by the root of that, 5.66. Each row below is a token that looks, each column one that is looked at.

# %%
head = 1  # counted from zero
scores = queries[head] @ keys[head].T / np.sqrt(32)
kitten, nap, the, couch = 2, 4, 7, 8  # their places

assert [names[i] for i in (kitten, nap, the, couch)] == ["kitten", "nap", "the", "couch"]
assert round(np.sqrt(32), 2) == 5.66 and scores.shape == (10, 10)
assert round(scores[couch, kitten], 1) == 2.2 and round(scores[couch, the], 1) == 0.1
heat_map(scores, names, names, digits=1)
# %% [markdown]
# To "couch", "kitten" scores 2.2 and "the" 0.1.
#
# ## Shares
#
# The *softmax* turns a row of scores into shares: `exp` of each, divided by their sum. Every row sums to 1.


# %%
def softmax(scores: np.ndarray) -> np.ndarray:
    """Each row of scores as shares; the largest is taken off first, so that exp cannot overflow."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


shares = softmax(scores)

assert {*np.round(shares.sum(axis=1), 12)} == {1}
assert [round(shares[couch, i], 2) for i in (kitten, couch, the)] == [0.29, 0.20, 0.04]
assert round(shares[nap, couch], 2) == 0.36
heat_map(shares, names, names)
# %% [markdown]
# "couch" takes 0.29 of what it reads from "kitten", 0.20 from itself and 0.04 from "the"; "nap" takes 0.36 from "couch". This
# head asks *what*: words find others that go with them. The third head asks *where*:

# %%
by_place = softmax(queries[2] @ keys[2].T / np.sqrt(32))

assert by_place[range(1, n), range(n - 1)].min() > 0.99
heat_map(by_place, names, names)
# %% [markdown]
# Each token takes more than 0.99 of what it reads from the token before it, whatever that token is, and `[CLS]`, which has none
# before it, reads itself. Only the rows of places can tell them who that is.
#
# ## Take the values
#
# Each token now gets the mean of the values, weighted by its shares. All twelve heads do so, their results are put side by side,
# and one more matrix mixes them. The result is not put in the place of the row: it is *added* to it.


# %%
def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray | float = 0
) -> np.ndarray:
    """The heads' results side by side, (n, C), of queries, keys and values (H, n, D). mask: added to the scores."""
    shares = softmax(queries @ keys.swapaxes(1, 2) / np.sqrt(keys.shape[2]) + mask)
    return (shares @ values).swapaxes(0, 1).reshape(len(values[0]), -1)


mixed = attend(queries, keys, values)
written = linear(mixed, "h.0.attn.c_proj")
after = x + written
lengths, added = np.linalg.norm(x, axis=1), np.linalg.norm(written, axis=1)
for name, before, length in zip(names, lengths, added, strict=True):
    print(f"{name:8} is {before:.1f} long, attention added {length:.1f}")

assert abs(mixed[couch, 32:64] - shares[couch] @ values[head]).max() < 1e-12
assert lengths.min() > 5 and 1.5 < added.min() < added.max() < 3.5
# %% [markdown]
# That is all of it: one short function, and a matrix before and after. What this first attention adds is 1.5 to 3.5 long, on rows
# longer than 5: each token keeps most of what it was.
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
    head_size=32,
    scale=1 / np.sqrt(32),
    causal=False,
)
print(f"shares differ by {abs(shares - by_engine).max():.1e}, results by {abs(mixed - as_op).max():.1e}")

assert abs(x - trace.states[0]).max() == 0
assert abs(shares - by_engine).max() < 1e-7
assert abs(mixed - as_op).max() < 0.0001
# %% [markdown]
# The input is the same to the last bit, a difference of 0, and the results differ by less than 0.0001, the rounding of float32.
#
# ## How does attention know the order?
#
# Not by itself: a weighted mean does not ask in which order its parts stand. The rows of places tell it. Give every token the
# same place, and compare the sums of what the tokens read in two sentences of the same words:


# %%
def sum_read(text: str, places: list[int], mask: np.ndarray | float = 0) -> np.ndarray:
    """The sum of what the tokens of a text read in the first attention, (C,)."""
    (text_ids,) = model.tokenizer.plain([text])
    rows = layer_norm(weights["wte.weight"][text_ids] + weights["wpe.weight"][places], "h.0.ln_1")
    queries, keys, values = split_heads(linear(rows, "h.0.attn.c_attn"))
    return attend(queries, keys, values, mask).sum(axis=0)


def difference(places: list[int], mask: np.ndarray | float = 0) -> float:
    first, second = (sum_read(text, places, mask) for text in ("The dog bit the man", "The man bit the dog"))
    return float(abs(first - second).max())


own, same = difference([1, 2, 3, 4, 5]), difference([1, 1, 1, 1, 1])
print(f"with their own places the sums differ by {own:.1g}, with the same place by {same:.1g}")

assert own > 0.3 and same < 1e-9
# %% [markdown]
# With one place for all, who bit whom is lost; with their own, some number differs by more than 0.3.
#
# ## GPT-2 looks back only
#
# So far every token could look at every other, as in BERT. GPT-2 itself was made to guess the next word, and a token that saw
# what comes next would not have to guess. So it looks at itself and at what stands before it. What comes later gets a score of
# minus infinity, which `exp` makes 0. This is the *causal mask*:

# %%
mask = np.where(np.tri(n, dtype=bool), 0, -np.inf)
looking_back = softmax(scores + mask)
masked = difference([1, 1, 1, 1, 1], mask[:5, :5])
print(f"with the mask and the same place the sums differ by {masked:.1g}")

assert looking_back[0, 0] == 1 and (looking_back[np.triu_indices(n, 1)] == 0).all()
assert shares[kitten, couch] > 0.1 and looking_back[kitten, couch] == 0
assert masked > 1
heat_map(looking_back, names, names)
# %% [markdown]
# The first token sees only itself, so its share is 1. The order is now known without any places, for who stands before whom
# decides who sees whom: the sums differ by more than 1. The price: "kitten", which took more than 0.1 from "couch", now takes 0.
# It cannot know yet where it will lie. A generator needs the mask, a vector of a whole text does not, so the built-in model works
# without: its `config.json` says `"is_causal": false`. Where that line is missing, as with GPT-2's own weights, there is a mask.
#
# ## What twelve heads read
#
# The model has six blocks of twelve heads. This is what "couch" reads in the last block:

# %%
last = trace.attention[5, :, couch]
from_first = trace.attention[:, :, 1:, 0].mean(axis=(1, 2))  # what the others take from [CLS], by block

assert trace.attention.shape == (6, 12, 10, 10)
assert last[11].argmax() == kitten and round(last[11, kitten], 2) == 0.63
assert last[9].argmax() == nap and round(last[9, nap], 2) == 0.30
assert from_first[1:5].min() > 0.5
heat_map(last, [f"head {i + 1}" for i in range(heads)], names)
# %% [markdown]
# The last head takes most from "kitten", 0.63, the tenth from "nap", 0.30: who, and what was done. Others read `[CLS]`, and in
# the blocks from the second to the fifth the words take on average more than 0.5 from it. What do they get? The values are rows,
# too, and this is how long they are:

# %%
lengths_by_block = []
for i, state in enumerate(trace.states[:-1]):
    handed = split_heads(linear(layer_norm(state, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"))[2]
    lengths_by_block.append(np.linalg.norm(handed, axis=2).mean(axis=0))
value_lengths = np.array(lengths_by_block)

assert value_lengths[1:5, 0].max() < 1 and value_lengths[1:5, 1:].min() > 2
heat_map(value_lengths, [f"block {i + 1}" for i in range(6)], names, digits=1)
# %% [markdown]
# In those blocks the value of `[CLS]` is shorter than 1, that of any other token longer than 2. Shares must sum to 1, so a head
# that finds nothing needs a place where they do no harm (Kobayashi et al. 2020). So take care: the pictures show where a head
# looks, not what it does with what it sees. How much each head adds to the similarity of two sentences can be computed exactly:
# `gpt2wgpu explain "A kitten is napping on the couch" "The cat sleeps on the sofa"` prints it. Before the last block it is next
# to nothing.
#
# The other half of a block, and the way of a token through all six, is [chapter 4](04_mlp_and_residual.py).
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/03_attention.py` leaves them out.
#
# 1. Do the heads of the last block find who and what in a sentence of yours? Try one in the passive.
# 2. Divide the scores by one instead of `np.sqrt(32)`, or by a hundred. What happens to the shares, and to their entropy, the
#    sum of `-share * log(share)` of a row?
# 3. What tells two orders of the same words apart best, their own places, the mask, or both? `difference` says.
