# %% [markdown]
# # 11. Exercises
#
# For beginners and beyond; the advanced ones are [chapter 12](12_exercises_with_kernels.py). Each one is a question, and below it
# a solution whose asserts check it. Cover the code, try, and compare. To check a solution of your own, put it in place of the one
# here and run the file.

# %%
import numpy as np
from shared import DATA_SETS, bar_chart, heat_map, line_chart

from gpt2wgpu import (
    Encoder,
    cosine_similarity,
    dot_product,
    euclidean_distance,
    quantize_embeddings,
    semantic_search,
)
from gpt2wgpu.evaluation.scores import distinct_sentences
from gpt2wgpu.evaluation.study import spearman_cosine
from gpt2wgpu.files.pairs import read_pairs
from gpt2wgpu.graph.tensor import Array

model = Encoder(device="numpy")
sentences = [
    "The cat sleeps on the sofa",
    "A kitten is napping on the couch",
    "Loans have become more expensive",
    "Borrowing money costs more now",
]
assert (model.layers, model.dimensions, len(sentences)) == (6, 384, 4)

# %% [markdown]
# The built-in model has 6 layers and gives vectors of 384 numbers.
#
# ## Beginner
#
# ### Embed sentences of your own
#
# Embed the sentences above. What is the shape of the result, how long is each vector, and which two sentences are closest?

# %%
vectors = model.encode(sentences)
cosines = model.similarity(vectors, vectors)
pair = divmod(int((cosines - 2 * np.eye(4)).argmax()), 4)
print(vectors.shape, "closest:", [sentences[i] for i in pair])

assert vectors.shape == (4, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
assert pair == (0, 1) and [round(float(cosines[i, i + 1]), 2) for i in (0, 2)] == [0.79, 0.78]
heat_map(cosines, ["cat", "kitten", "loans", "borrowing"], ["cat", "kitten", "loans", "borrowing"])

# %% [markdown]
# The cat and the kitten, with a cosine of 0.79, although they share only "on" and "the". The two about money are nearly as close:
# 0.78, with nothing but "more" in common.
#
# ### Compare the measures
#
# Sort the other sentences by their similarity to the first one: by cosine, by dot product, by Euclidean distance. Do the orders
# agree? Do they when the vectors are not of length one? For that, make the vector of the second sentence five times as long.


# %%
def orders(vectors: Array) -> list[list[int]]:
    """The rows 1, 2, 3 from the most to the least similar to row 0: by cosine, dot product and distance."""
    a, others = vectors[0], range(1, 4)
    return [
        sorted(others, key=lambda i: -cosine_similarity(a, vectors[i])),
        sorted(others, key=lambda i: -dot_product(a, vectors[i])),
        sorted(others, key=lambda i: euclidean_distance(a, vectors[i])),
    ]


longer = vectors * np.array([1, 5, 1, 1], np.float32)[:, None]
print(orders(vectors), orders(longer))
by_cosine, by_dot, by_distance = orders(vectors)
assert by_cosine == by_dot == by_distance == [1, 2, 3]
distance = euclidean_distance(vectors[0], vectors[1])
assert abs(distance**2 - (2 - 2 * cosine_similarity(vectors[0], vectors[1]))) < 0.00001
assert orders(longer) == [[1, 2, 3], [1, 2, 3], [2, 3, 1]]

# %% [markdown]
# Of unit vectors all three give one order: the squared distance is twice (one minus the cosine), here within 0.00001. Of others
# they need not: the kitten's long vector is now the furthest of all by distance, while the cosine does not see length.
#
# ### Batches
#
# Does a sentence get another vector when it is encoded with others? Does the order of the results follow that of the texts?

# %%
alone = np.stack([model.encode(sentence) for sentence in sentences])
backwards = model.encode(sentences[::-1])[::-1]
print(f"largest difference {np.abs(alone - vectors).max():.1e}, {np.abs(backwards - vectors).max():.1e}")
assert np.abs(alone - vectors).max() < 0.00001 and np.abs(backwards - vectors).max() < 0.00001

# %% [markdown]
# No: within 0.00001 in numpy, where the last bits of a sum may differ, and to the last bit on a device. The order follows.
#
# ### Search
#
# Which of the sentences answers "How much is a mortgage?" best?

# %%
hits = semantic_search(model.encode("How much is a mortgage?"), vectors)[0]
print([(sentences[int(hit["corpus_id"])], round(hit["score"], 2)) for hit in hits])
assert {hits[0]["corpus_id"], hits[1]["corpus_id"]} == {2, 3} and hits[1]["score"] > 2 * hits[2]["score"]

# %% [markdown]
# ## Intermediate
#
# ### Layers
#
# After which layer does the cosine tell the two subjects apart best? Measure the mean cosine within a subject minus that between
# the subjects after each block.


# %%
def contrast(vectors: Array) -> float:
    """The mean cosine of (0, 1) and (2, 3), minus that of the four other pairs."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = units @ units.T
    return float((found[0, 1] + found[2, 3]) / 2 - found[:2, 2:].mean())


by_layer = np.split(model.with_layers(range(7), ["mean"]).encode(sentences), 7, axis=1)
contrasts = [contrast(x) for x in by_layer]
print([round(c, 3) for c in contrasts])
assert max(contrasts[:4]) < 0.2 and contrasts[3] < contrasts[4] < contrasts[5] < 0.5 and contrasts[6] > 0.7
line_chart({"contrast": contrasts}, across_name="layer", digits=1)

# %% [markdown]
# After the last one, by more than 0.7; in the first ones by less than 0.2, because all vectors lie in a narrow cone there. That
# does not mean that nothing is known there: [chapter 6](06_anisotropy.py).
#
# ### Poolings
#
# A text's vector is made of its tokens' vectors. Compute `mean`, `max`, `last` and `cls` (the first token) by hand from
# `output_value="token_embeddings"`, and compare with `Encoder(pooling=...)`. Which of them tells the subjects apart best?

# %%
tokens = model.encode(sentences, output_value="token_embeddings")
by_hand = {
    "mean": np.stack([t.mean(0) for t in tokens]),
    "max": np.stack([t.max(0) for t in tokens]),
    "last": np.stack([t[-1] for t in tokens]),
    "cls": np.stack([t[0] for t in tokens]),
}
for name, expected in by_hand.items():
    units = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    found = Encoder(device="numpy", pooling=name).encode(sentences, normalize_embeddings=True)
    assert np.abs(found - units).max() < 0.00001
contrast_of = {name: contrast(x) for name, x in by_hand.items()}
assert [*sorted(contrast_of, key=lambda name: -contrast_of[name])][:2] == ["mean", "last"]
assert 2 * max(contrast_of["max"], contrast_of["cls"]) < contrast_of["last"]
bar_chart(contrast_of, digits=2)

# %% [markdown]
# By hand and by name agree within 0.00001, and `mean` is best: the model was trained with it. `last`, here the token [SEP], comes
# next, and `max` and `cls` have less than half of that. The first token of GPT-2, whose tokens see only those before them, would
# tell nothing of the rest of the text.
#
# ### What each token gave
#
# Mean pooling is a sum, so a cosine can be split over the tokens without any approximation. How much of the cosine of the
# first two sentences came from each word of the second?

# %%
a, b = by_hand["mean"][1], by_hand["mean"][0]
shares = tokens[1] @ b / (len(tokens[1]) * np.linalg.norm(a) * np.linalg.norm(b))
names = [token["text"].strip() for token in model.tokenizer.describe([sentences[1]])[0]]
print({name: round(share, 3) for name, share in zip(names, shares.tolist(), strict=True)})
assert abs(shares.sum() - cosine_similarity(a, b)) < 0.00001
assert shares.sum() > 0.7 and {names[i] for i in np.argsort(-shares)[:2]} == {"kitten", "couch"}
assert np.sort(shares)[-2:].sum() < 0.3 and shares.min() > 0.03
bar_chart([*zip(names, shares.tolist(), strict=True)])

# %% [markdown]
# The shares add up to the cosine within 0.00001. "kitten" and "couch" gave most, but together less than 0.3 of more than 0.7:
# every other token gave more than 0.03, [CLS] and [SEP] too, which stand for no word. By the last layer each token has read the
# whole text, and its vector tells of all of it. `gpt2wgpu explain` shows this for every token, head and layer.
#
# ### Smaller vectors
#
# A vector takes 1,536 bytes, four for each number. How much worse does it judge pairs of sentences when each number is one byte,
# or one bit?

# %%
pairs = read_pairs(str(DATA_SETS / "dev.tsv"))
judged = distinct_sentences(pairs)
floats = model.encode(judged)
as_bytes = quantize_embeddings(floats, "int8").astype(np.float32)
step = (
    floats.max(0) - floats.min(0)
) / 255  # of each of the 384 numbers; a byte counts steps from the lowest
decoded = floats.min(0) + step * (as_bytes + 128.5)
as_bits = 2.0 * np.unpackbits(quantize_embeddings(floats, "ubinary"), axis=1) - 1
forms = {
    "float32": floats,
    "byte, decoded": decoded,
    "byte as it is": as_bytes,
    "bit": as_bits.astype(np.float32),
}
scores = {name: spearman_cosine(x, judged, pairs) for name, x in forms.items()}
print({name: round(score, 3) for name, score in scores.items()})
assert floats[0].nbytes == 1536 and round(scores["float32"], 2) == 0.42
assert abs(scores["byte, decoded"] - scores["float32"]) < 0.002
assert [round(scores[name], 2) for name in ("byte as it is", "bit")] == [0.43, 0.43]
bar_chart(scores)

# %% [markdown]
# float32 scores 0.42 (Spearman's correlation with the labels). Bytes that are decoded differ from it by less than 0.002, in a
# quarter of the memory. The same bytes as they are score 0.43: each of the numbers has its own smallest value and step, which the
# cosine then takes for equal. That does no harm here, where all numbers vary about as much; in another model it may. One bit of
# each, a thirty-second of the memory, has 0.43 as well.
#
# ## Try
#
# - The same exercises with another model (`Encoder("path/to/a/folder")`): which asserts fall, and why?
# - Search your own notes with the solution of "search", then with `gpt2wgpu search`. Do they agree?
