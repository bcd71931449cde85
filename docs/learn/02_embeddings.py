# %% [markdown]
# # 2. Embeddings against one-hot
#
# An id is a name, not a quantity: token 16529 is not larger than token 1008 in any useful sense. So how does a model compute with
# it? The honest answer is the *one-hot* vector: as long as the vocabulary, all zeros, and a one in the token's own place.

# %%
import numpy as np
from safetensors.numpy import load_file
from shared import DATA_SETS, bar_chart, heat_map

from gpt2wgpu import Encoder, cosine_similarity, euclidean_distance

model = Encoder(device="numpy")
vocabulary = model.tokenizer.vocab


def token_id(word: str) -> int:
    """The id of a word that is a single token."""
    (ids,) = model.tokenizer.plain([word])
    assert len(ids) == 1, f"{word!r} is cut into {len(ids)} tokens"
    return int(ids[0])


one_hot = {word: np.eye(1, vocabulary, token_id(word))[0] for word in ("kitten", "cat", "money")}
for word in ("cat", "money"):
    a, b = one_hot["kitten"], one_hot[word]
    print(f"kitten and {word:5}: cosine {cosine_similarity(a, b)}, distance {euclidean_distance(a, b):.3f}")
    assert cosine_similarity(a, b) == 0 and round(euclidean_distance(a, b), 3) == 1.414

assert (token_id("kitten"), token_id("is"), vocabulary) == (16529, 1008, 19712)
# %% [markdown]
# Every two tokens are equally far apart, at 1.414, and every cosine is 0. The one-hot vector says which token it is, and nothing
# else: a kitten is as unlike a cat as it is unlike money. And it takes 19,712 numbers to say so.
#
# ## A row of a table
#
# The first thing in the model is a table with one row for each token. Multiply a one-hot vector by it, and one row remains:

# %%
stored = load_file(model.checkpoint.folder / "model.safetensors")
integers, scales = stored["wte.weight"], stored["wte.weight_scale"].astype(np.float64)
table = integers * np.repeat(scales, 64, axis=1)
row = one_hot["kitten"] @ table
print("table", table.shape, "kitten:", np.round(row[:6], 2), "...")

assert integers.dtype == np.int8 and abs(integers.astype(int)).max() == 127 and table.size / scales.size == 64
assert table.shape == (19712, 384) and (row == table[16529]).all()
assert round(table.shape[0] / table.shape[1]) == 51
# %% [markdown]
# The file holds the table in int8, integers from -127 to 127, and one scale for every 64 of them: their products are the numbers.
#
# And nobody multiplies by a one-hot vector: the row is looked up. It is the token's *embedding*, 384 numbers instead of 19,712,
# 51 times fewer. They are *weights*. This model's began as those of a larger model, its teacher, and training moved them on
# ([chapter 7](07_training.py)). Tokens that are used alike lie side by side:

# %%
words = ["kitten", "cat", "couch", "sofa", "bread", "money"]
rows = table[[token_id(word) for word in words]]
units = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # then a product is a cosine
cosines = units @ units.T

assert round(cosines[0, 1], 2) == 0.62 and round(cosines[2, 3], 2) == 0.72
assert round(cosines[0, 5], 2) == 0.08
heat_map(cosines, words, words)
# %% [markdown]
# Kitten and cat have a cosine of 0.62, couch and sofa 0.72, kitten and money 0.08. One-hot vectors would show ones on the
# diagonal and nothing else.
#
# ## Neighbours
#
# One product compares a token with the whole vocabulary:

# %%
lengths = np.linalg.norm(table, axis=1)
names = {i: name for name, i in model.tokenizer.vocabulary().items()}


def find_neighbours(word: str, count: int) -> dict[str, float]:
    """The tokens of the highest cosine to a word, without itself."""
    i = token_id(word)
    cosine = table @ table[i] / (lengths * lengths[i])
    order = [j for j in np.argsort(-cosine).tolist() if j != i]
    return {names[j]: round(float(cosine[j]), 2) for j in order[:count]}


for word in ("kitten", "seven", "london", "bank"):
    print(f"{word:7}", ", ".join(f"{name} {cosine:.2f}" for name, cosine in find_neighbours(word, 6).items()))

assert {*find_neighbours("kitten", 3)} == {"cats", "cat", "kitty"}
assert find_neighbours("seven", 1) == {"7": 0.77}
assert find_neighbours("bank", 6)["money"] == 0.43
bank_river = cosine_similarity(table[token_id("bank")], table[token_id("river")])
assert round(bank_river, 2) == 0.34
# %% [markdown]
# `seven` and `7` share no letter and have a cosine of 0.77. But look at "bank": all its neighbours are about money (the word
# itself: 0.43), and "river" has 0.34. A token has one row, whatever the sentence is about. Two meanings share it, and one wins.
#
# ## From tokens to a sentence
#
# The simplest vector of a sentence is the sum or the mean of its tokens' vectors. With one-hot vectors that is a *bag of words*:
# how often each token occurs. Compare it with the mean of the embeddings, and with the whole model:


# %%
def sum_one_hot(text: str) -> np.ndarray:
    """How often each token occurs, (V,)."""
    return np.bincount(model.tokenizer.plain([text])[0], minlength=vocabulary)


def mean_embedding(text: str) -> np.ndarray:
    """The mean of the tokens' rows, (C,)."""
    return table[model.tokenizer.plain([text])[0]].mean(0)


pairs = {
    "same meaning, other words": ("The cat sleeps on the sofa", "A kitten is napping on the couch"),
    "other meaning, same words": ("The cat sleeps on the sofa", "The dog sleeps on the roof"),
    "the same words, reordered": ("The dog bit the man", "The man bit the dog"),
}
found = []
for a, b in pairs.values():
    ways = (sum_one_hot(a), sum_one_hot(b)), (mean_embedding(a), mean_embedding(b)), model.encode([a, b])
    found.append([round(cosine_similarity(x, y), 3) for x, y in ways])

assert found[0] == [0.375, 0.925, 0.792]
assert found[1] == [0.75, 0.931, 0.567]
assert found[2] == [1, 1, 0.987]
heat_map(found, [*pairs], ["bag of words", "embeddings", "model"], digits=3)
# %% [markdown]
# - The bag of words sees letters only: 0.375 for the same meaning, and twice that, 0.750, for the other one.
# - The mean of embeddings gives nearly the same, 0.925 and 0.931. That a couch is a sofa counts, but so does every "the".
# - The model keeps the first, 0.792, and tells the second apart, 0.567.
# - A mean forgets the order of its tokens, so the first two give exactly 1 for a dog that bites and a dog that is bitten. The
#   model gives 0.987: it sees a difference, but hardly. Word order is where small models are weakest.
#
# ## Not every word says as much
#
# The mean counts "the" as much as "kitten". A weight for each token helps: the rarer it is, the more it counts (Arora et al.
# 2017). To see how much, take the 360 pairs of `data_sets/dev.tsv`, labelled as meaning the same or not. Draw one pair of each
# kind: how often has the one that means the same the higher cosine? By chance it is half of the time.

# %%
lines = [line.split("\t") for line in (DATA_SETS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
same = np.array([line[3] == "1" for line in lines])
left, right = (model.tokenizer.plain([line[i] for line in lines]) for i in (1, 2))
counts = np.bincount(np.concatenate([*left, *right]), minlength=vocabulary)
frequency = counts / counts.sum()
rarity = 0.001 / (0.001 + frequency)


def chance_of_order(rows: np.ndarray) -> float:
    """How often a pair that means the same has the higher cosine, if each token stands for its row."""
    cosines = np.array(
        [cosine_similarity(rows[a].sum(0), rows[b].sum(0)) for a, b in zip(left, right, strict=True)]
    )
    return float((cosines[same, None] > cosines[~same]).mean())


chances = {
    "plain mean": chance_of_order(table),
    "weighted mean": chance_of_order(rarity[:, None] * table),
}

assert len(lines) == 360 and round(lengths.min(), 1) == round(lengths.max(), 1) == 5.4
assert round(100 * frequency[token_id("the")]) == 16
assert [round(chance, 2) for chance in chances.values()] == [0.61, 0.70]
bar_chart(chances, digits=2)
# %% [markdown]
# Every row of this table is 5.4 long, and 16 % of all tokens here are "the". The plain mean is right 0.61 of the time, the
# weighted one 0.70, with one table and no network at all. How the model weighs its words is in
# [chapter 4](04_mlp_and_residual.py).
#
# What is missing is context: "bank" beside "river" should become another vector than "bank" beside "money", and so should a dog
# before and after "bit". Letting tokens look at each other is the work of [attention](03_attention.py).
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/02_embeddings.py` leaves them out.
#
# 1. Find neighbours of words with two meanings: "mouse", "spring", "match". Which meaning won?
# 2. The famous sum: is `table[king] - table[man] + table[woman]` nearest to "queen"? Leave out the three words themselves. Then
#    leave out the sum, and look at the plain neighbours of "king".
# 3. Subtract `table.mean(0)` from all rows before anything else. Which cosines change most, and do `chances` get better?
