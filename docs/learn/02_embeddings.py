# %% [markdown]
# # 2. Embeddings against one-hot
#
# An id is a name, not a quantity: token 3928 is not larger than token 295 in any useful sense. So how does a model compute with
# it? The honest answer is the *one-hot* vector: as long as the vocabulary, all zeros, and a one in the token's own place.

# %%
import numpy as np
from safetensors.numpy import load_file
from shared import heat_map

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

assert (token_id("kitten"), token_id("is"), vocabulary) == (3928, 295, 20480)
# %% [markdown]
# Every two tokens are equally far apart, at 1.414, and every cosine is 0. The one-hot vector says which token it is, and nothing
# else: a kitten is as unlike a cat as it is unlike money. And it takes 20,480 numbers to say so.
#
# ## A row of a table
#
# The first thing in the model is a table with one row for each token. Multiply a one-hot vector by it, and one row remains:

# %%
weights = load_file(model.checkpoint.folder / "model.safetensors")
table = weights["wte.weight"].astype(np.float64)
row = one_hot["kitten"] @ table
print("table", table.shape, "kitten:", np.round(row[:6], 2), "...")

assert table.shape == (20480, 256) and (row == table[3928]).all()
assert table.shape[0] / table.shape[1] == 80
# %% [markdown]
# So nobody multiplies: the row is looked up. It is the token's *embedding*, 256 numbers instead of 20,480, 80 times fewer. They
# are *weights*: this model's began as another model's vectors of single words, and training moved them until whole sentences came
# out right ([chapter 7](07_training.py)). Tokens that are used alike lie side by side:

# %%
words = ["kitten", "cat", "couch", "sofa", "bread", "money"]
rows = table[[token_id(word) for word in words]]
units = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # then a product is a cosine
cosines = units @ units.T

assert round(cosines[0, 1], 3) == 0.752 and round(cosines[2, 3], 3) == 0.795
assert round(cosines[0, 5], 3) == 0.240
heat_map(cosines, words, words)
# %% [markdown]
# Kitten and cat have a cosine of 0.752, couch and sofa 0.795, kitten and money 0.240. One-hot vectors would show ones on the
# diagonal and nothing else.
#
# ## Neighbours
#
# One product compares a token with the whole vocabulary:

# %%
lengths = np.linalg.norm(table, axis=1)
names = [name.strip() for name in model.tokenizer.decode([[i] for i in range(vocabulary)])]


def find_neighbours(word: str, count: int) -> dict[str, float]:
    """The tokens of the highest cosine to a word; the same letters with and without a space are one."""
    i = token_id(word)
    cosine = table @ table[i] / (lengths * lengths[i])
    found: dict[str, float] = {}
    for j in np.argsort(-cosine)[: 4 * count]:
        if names[j] != names[i]:
            found.setdefault(names[j], round(float(cosine[j]), 3))
    return dict([*found.items()][:count])


for word in ("kitten", "seven", "london", "bank"):
    print(f"{word:7}", ", ".join(f"{name} {cosine:.2f}" for name, cosine in find_neighbours(word, 7).items()))

assert [*find_neighbours("kitten", 3)] == ["kitty", "cat", "cats"]
assert find_neighbours("seven", 1) == {"7": 0.919}
assert find_neighbours("bank", 3)["financial"] == 0.655
bank_river = cosine_similarity(table[token_id("bank")], table[token_id("river")])
assert round(bank_river, 3) == 0.420
# %% [markdown]
# `seven` and `7` share no letter and have a cosine of 0.919. But look at "bank": all its neighbours are about money (financial:
# 0.655), and "river" has only 0.420. A token has one row, whatever the sentence is about. Two meanings share it, and one wins.
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

assert found[0] == [0.375, 0.746, 0.718]
assert found[1] == [0.75, 0.725, 0.562]
assert found[2] == [1, 1, 0.988]
heat_map(found, [*pairs], ["bag of words", "embeddings", "model"], digits=3)
# %% [markdown]
# - The bag of words sees letters only: 0.375 for the same meaning, and twice that, 0.750, for the other one.
# - The mean of embeddings puts them in the right order, 0.746 before 0.725. That is one table and no network at all, and often
#   surprisingly good.
# - The model keeps the first, 0.718, and tells the second apart, 0.562.
# - A mean forgets the order of its tokens, so the first two give exactly 1 for a dog that bites and a dog that is bitten. The
#   model gives 0.988: it sees a difference, but hardly. Word order is where small models are weakest.
#
# ## Lengths speak, too
#
# A mean of vectors weighs each token by its length. Nobody gave this model a list of stop words:

# %%
for word in ("the", "a", "on", "is", "cat", "kitten", "couch"):
    print(f"{word:7} {lengths[token_id(word)]:.2f}")

assert round(lengths[token_id("the")], 2) == 0.96 and round(lengths[token_id("kitten")], 2) == 4.09
assert round(lengths.min(), 2) == 0.79 and names[int(lengths.argmin())] == "."
# %% [markdown]
# "the" is 0.96 long and "kitten" 4.09: the frequent words, which say little, hardly move the mean. The shortest row of all, 0.79,
# is that of the full stop.
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
# 3. Give all rows the length one before taking the mean. Do the first two pairs get better or worse?
