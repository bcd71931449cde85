# %% [markdown]
# # 11. Exercises
#
# From beginner to advanced. Each one is a question, and below it a solution whose asserts check it. Cover the code, try, and
# compare. To check a solution of your own, put it in place of the one here and run the file.

# %%
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
from shared import DATA_SETS, bar_chart, heat_map, line_chart

from gpt2wgpu import (
    Encoder,
    UserError,
    cosine_similarity,
    dot_product,
    euclidean_distance,
    quantize_embeddings,
    semantic_search,
)
from gpt2wgpu.devices.selftest import Case, Check, check_op
from gpt2wgpu.evaluation.scores import distinct_sentences
from gpt2wgpu.evaluation.study import spearman_cosine
from gpt2wgpu.files.pairs import read_pairs
from gpt2wgpu.gpu import choose_adapter, kernels, open_device
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.ops.grids import ELEMENT_THREADS
from gpt2wgpu.graph.tensor import Array, op

model = Encoder(device="numpy")
sentences = [
    "The cat sleeps on the sofa",
    "A kitten is napping on the couch",
    "Loans have become more expensive",
    "Borrowing money costs more now",
]
assert (model.layers, model.dimensions, len(sentences)) == (5, 256, 4)

# %% [markdown]
# The built-in model has 5 layers and gives vectors of 256 numbers.
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

assert vectors.shape == (4, 256) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
assert pair == (0, 1) and round(float(cosines[0, 1]), 2) == 0.72
heat_map(cosines, ["cat", "kitten", "loans", "borrowing"], ["cat", "kitten", "loans", "borrowing"])

# %% [markdown]
# The cat and the kitten, with a cosine of 0.72, although they share only "the" and "on".
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


by_layer = np.split(model.with_layers(range(6), ["mean"]).encode(sentences), 6, axis=1)
contrasts = [contrast(x) for x in by_layer]
print([round(c, 3) for c in contrasts])
assert max(contrasts[:5]) < 0.01 and contrasts[5] > 0.6
line_chart({"contrast": contrasts}, across_name="layer", digits=1)

# %% [markdown]
# After the last one, by more than 0.6; before it by less than 0.01, because all vectors lie in a narrow cone there. That does not
# mean that nothing is known there: [chapter 6](06_anisotropy.py).
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
assert max(contrast_of, key=lambda name: contrast_of[name]) == "mean"
bar_chart(contrast_of, digits=2)

# %% [markdown]
# By hand and by name agree within 0.00001, and `mean` is best: the model was trained with it. `cls` is the worst of choices for a
# decoder, since its first token sees no other.
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
assert shares.sum() > 0.7 and shares[names.index("kitten")] + shares[names.index("couch")] > 0.6
bar_chart([*zip(names, shares.tolist(), strict=True)])

# %% [markdown]
# The shares add up to the cosine within 0.00001. "kitten" and "couch" gave more than 0.6 of it. `gpt2wgpu explain` shows this for
# every token, head and layer.
#
# ### Smaller vectors
#
# A vector takes 1,024 bytes, four for each number. How much worse does it judge pairs of sentences when each number is one byte,
# or one bit?

# %%
pairs = read_pairs(str(DATA_SETS / "dev.tsv"))
judged = distinct_sentences(pairs)
floats = model.encode(judged)
as_bytes = quantize_embeddings(floats, "int8").astype(np.float32)
step = (
    floats.max(0) - floats.min(0)
) / 255  # of each of the 256 numbers; a byte counts steps from the lowest
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
assert floats[0].nbytes == 1024 and round(scores["float32"], 3) == 0.355
assert abs(scores["byte, decoded"] - scores["float32"]) < 0.002
assert [round(scores[name], 2) for name in ("byte as it is", "bit")] == [0.34, 0.32]
bar_chart(scores)

# %% [markdown]
# float32 scores 0.355 (Spearman's correlation with the labels). Bytes that are decoded differ from it by less than 0.002, in a
# quarter of the memory. The same bytes as they are score 0.34: each of the numbers has its own smallest value and step, which the
# cosine then takes for equal. One bit of each, a thirty-second of the memory, still scores 0.32.
#
# ## Advanced
#
# The rest runs kernels. Without an adapter their checks are left out, and the chapter says so.

# %%
try:
    adapter = choose_adapter("gpu")
    assert adapter is not None
    device = open_device(adapter, checked=True)
    print(f"kernels run on {adapter}")
except UserError as error:
    device = None
    print(f"no kernel runs here: {error}")


def check_kernel(case: Case, shader: str, source: str) -> Check | None:
    """Compare an op on the device with numpy, with this source in place of shaders/SHADER.wgsl; None without a device."""
    if device is None:
        return None
    original = kernels.read_shader
    with mock.patch.object(kernels, "read_shader", lambda name: source if name == shader else original(name)):
        found = check_op(device, case)
    print(f"{case.op.name} {case}: {'right' if found.ok else found.what}")
    return found


# %% [markdown]
# ### Change the size of a workgroup
#
# `shaders/concat.wgsl` puts two rows side by side, with a thread for each number and 64 threads in a workgroup. Make it 32. Is
# the result still right? What else has to change?

# %%
concat = kernels.read_shader("concat")
smaller = concat.replace("@workgroup_size(64)", "@workgroup_size(32)")
case = Case(ops.concat, {"J": 70, "K": 3})
as_it_is = check_kernel(case, "concat", concat)
shader_alone = check_kernel(case, "concat", smaller)
with_grid = replace(ops.concat, grid=lambda p: (-(-(p.J + p.K) // 32), p.B, 1))
both = check_kernel(Case(with_grid, {"J": 70, "K": 3}), "concat", smaller)

assert (ELEMENT_THREADS, ELEMENT_THREADS // 2, case.sizes["J"] + case.sizes["K"]) == (64, 32, 73)
assert smaller != concat and ops.concat.grid(SimpleNamespace(J=70, K=3, B=1)) == (2, 1, 1)
assert with_grid.grid(SimpleNamespace(J=70, K=3, B=1)) == (3, 1, 1)
assert as_it_is is None or (as_it_is.ok and shader_alone is not None and not shader_alone.ok)
assert both is None or both.ok

# %% [markdown]
# For 73 numbers in a row the grid has 2 workgroups, enough with 64 threads, but not with 32: the last numbers of each row are
# never written, and the check finds it. With a grid of 3 it is right again.
#
# ### Add an activation
#
# "Squared ReLU", the square of max(x, 0), trains faster than ReLU in
# [So et al. 2021](https://arxiv.org/abs/2109.08668). Add it to the activations: in numpy, and in WGSL.


# %%
def squared_relu(x: Array) -> None:
    """max(x, 0)^2, in place as all of ACTIVATIONS."""
    np.maximum(x, 0, out=x)
    np.square(x, out=x)


activation = kernels.read_shader("activation")
constant, last = "const ELU: u32 = 9u;\n", "  if (ACTIVATION == ELU)"
assert activation.count(constant) == activation.count(last) == 1
rule = "  if (ACTIVATION == SQUARED_RELU) { return max(x, 0.0) * max(x, 0.0); }\n"
longer_file = activation.replace(constant, constant + "const SQUARED_RELU: u32 = 10u;\n").replace(
    last, rule + last
)

x = np.array([-1, 0, 2, 3], np.float32)
squared_relu(x)
assert x.tolist() == [0, 0, 4, 9]
with mock.patch.dict(ops.ACTIVATIONS, squared_relu=squared_relu):
    case = Case(ops.glu, {"N": 67}, attrs={"activation": "squared_relu"})
    right = check_kernel(case, "activation", longer_file)
    wrong = check_kernel(case, "activation", longer_file.replace("return max(x, 0.0) * max", "return max"))
assert right is None or (right.ok and right.error < 0.00001)
assert wrong is None or wrong.error > 0.1

# %% [markdown]
# The kernel is within 0.00001 of numpy; plain ReLU in its place is off by more than 0.1. The numbers of the constants follow the
# order of `ACTIVATIONS`; a test of the package compares the two lists.
#
# ### Write an op with its kernel
#
# [Chapter 6](06_anisotropy.py) looked at the lengths of tokens' states. Write an op that computes them: a numpy function with its
# declaration, and a kernel with a thread for each token. What keeps a thread past the last token from writing?


# %%
@op("x[T,C] -> out[T]", grid=lambda p: (-(-p.T // 64), 1, 1))
def token_lengths(x: Array) -> Array:
    """The length of each row."""
    return np.sqrt(np.einsum("tc,tc->t", x, x))


TOKEN_LENGTHS = """
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.T) { return; }
  var sum = 0.0;
  for (var c = 0u; c < p.C; c++) { let v = x[id.x * p.C + c]; sum = fma(v, v, sum); }
  out[id.x] = sqrt(sum);
}
"""
case = Case(token_lengths, {"C": 68}, lengths=(1, 64, 65))
right = check_kernel(case, "token_lengths", TOKEN_LENGTHS)
wrong = check_kernel(case, "token_lengths", TOKEN_LENGTHS.replace("c < p.C", "c < p.C - 1u"))
assert token_lengths.reference(np.array([[3, 4]], np.float32)).tolist() == [5]
assert right is None or (right.ok and right.error < 0.00002)
assert wrong is None or not wrong.ok

# %% [markdown]
# The line with `return`. The lengths agree within 0.00002, and a kernel that forgets the last column is found. Three things made
# that an op of the package's kind: the declaration gave the bindings, the uniform block and the output's shape; the numpy
# function the right answer; and the check both. What is left to make it one of the package's own is in
# `docs/adding-a-kernel.md`.
#
# ### A faster one
#
# In that kernel neighbouring threads read rows that lie far apart, so each read of memory serves one thread. Share a row among
# the threads of a workgroup instead, as in [chapter 8](08_from_numpy_to_wgsl.py).

# %%
SHARED_ROW = """
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var c = lane; c < p.C; c += 64u) { let v = x[group.x * p.C + c]; sum = fma(v, v, sum); }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { sums[lane] += sums[lane + half]; }
    workgroupBarrier();
  }
  if (lane == 0u) { out[group.x] = sqrt(sums[0]); }
}
"""
row_each = replace(token_lengths, grid=lambda p: (p.T, 1, 1))
for width in (1, 63, 64, 65, 300):
    right = check_kernel(Case(row_each, {"C": width}, lengths=(1, 64, 65)), "token_lengths", SHARED_ROW)
    assert right is None or right.error < 0.00002

# %% [markdown]
# Within 0.00002 at every width, also where the number of threads does not divide it. In what order are the numbers of a row
# added now, and does it depend on the batch? It must not: then a text would get other bits in another batch.
#
# ## Try
#
# - `gpt2wgpu doctor --shader FILE` checks a kernel of yours in place of one of the package's, and times both: change
#   `shaders/l2_normalize.wgsl` and see. `docs/learn/puzzles` has twelve kernels to make right.
# - Let the shared kernel read four columns at a time, `array<vec4<f32>>`. What about a width that four does not divide?
# - Give `glu` another activation of your own, and train a model with it: it also needs a derivative (`gpt2wgpu/train/ops.py`).
