# %% [markdown]
# # 6. The narrow cone: anisotropy
#
# Between the blocks of a model the vectors of all texts point in much the same direction. Their cosines are high, whatever the
# texts say. That is called anisotropy. This chapter measures it in the built-in model, asks whether it hides the meaning, finds
# one token that makes much of it, and takes that out.

# %%
import numpy as np
from shared import DATA_SETS, bar_chart, line_chart

from gpt2wgpu import Encoder
from gpt2wgpu.evaluation.scores import distinct_sentences
from gpt2wgpu.evaluation.study import spearman_cosine
from gpt2wgpu.files.pairs import read_pairs, read_sentences
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.vectors.postprocess import fit_steps, parse_steps

model = Encoder(device="numpy")
pairs = read_pairs(str(DATA_SETS / "dev.tsv"))
sentences = distinct_sentences(pairs)
texts = [*dict.fromkeys(read_sentences(str(DATA_SETS / "train.tsv")))][:1000]
every_layer = model.with_layers(range(model.layers + 1), ["mean", "cls"]).encode([*sentences, *texts])
parts = np.split(every_layer, 2 * (model.layers + 1), axis=1)
layers, firsts = parts[::2], parts[1::2]  # of each layer: the mean over the tokens, and the first token
judged, unjudged = [x[: len(sentences)] for x in layers], [x[len(sentences) :] for x in layers]

assert (len(pairs), len(sentences), len(texts), judged[6].shape[1]) == (360, 720, 1000, 384)

# %% [markdown]
# The texts are the 720 sentences of the 360 judged pairs in `data_sets/dev.tsv`. The vectors are the means of the tokens' states
# after each block, before anything is done to them. Another 1,000 sentences, of `train.tsv`, are kept for repairs.
#
# The first figure is the mean cosine of all pairs of different sentences. The sum of all cosines is the square of the length of
# the sum of all unit vectors; take away the n cosines of sentences with themselves, and nobody has to form the pairs.


# %%
def mean_cosine(x: Array) -> float:
    """Of all pairs of two different rows of x (n, C)."""
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    n = len(units)
    return float((np.square(units.sum(0)).sum() - n) / (n * (n - 1)))


cones = [mean_cosine(x) for x in judged]
print("mean cosine of the embeddings, and after each block:", [round(cone, 3) for cone in cones])
assert [round(cone, 2) for cone in cones] == [0.92, 0.92, 0.89, 0.78, 0.70, 0.71, 0.11]

# %% [markdown]
# At the embeddings two sentences that have nothing in common have a cosine of 0.92 on average, and 0.71 after the fifth block
# still. The sixth block and the final norm open the cone: 0.11.
#
# ## Does it hide the meaning?
#
# A high cosine says nothing by itself. What counts is whether pairs of one meaning have a *higher* cosine than others. The
# measure is Spearman's correlation with people's labels: zero is chance. A label is only "same" or "different", so many pairs
# tie, and even a perfect order reaches no more than 0.866.


# %%
def score(vectors: Array) -> float:
    """Spearman's correlation of the cosines of the pairs with their labels."""
    return spearman_cosine(vectors, sentences, pairs)


def rank_correlation_of_perfect_order(n: int) -> float:
    """Of n similarities, all different, with labels that are 0 for the lower half and 1 for the upper one."""
    return float(np.corrcoef(np.arange(n), np.arange(n) >= n / 2)[0, 1])


raw = [score(x) for x in judged]
print("score of the embeddings, and after each block:", [round(s, 3) for s in raw])
assert round(min(raw), 2) == 0.13 and round(max(raw[:6]), 2) == 0.17 and round(raw[6], 2) == 0.42
assert round(rank_correlation_of_perfect_order(len(pairs)), 3) == 0.866

# %% [markdown]
# Only 0.13 to 0.17 up to the fifth block, and 0.42 at the end. Did the last block add so much, or was it there before?
#
# ## What all vectors share
#
# The simplest thing that they can have in common is their mean. We look at the vectors after the first block.

# %%
mean, lengths = judged[1].mean(0), np.linalg.norm(judged[1], axis=1)
print(f"the mean vector is {np.linalg.norm(mean):.2f} long, a vector {lengths.mean():.2f} on average")
assert (round(float(np.linalg.norm(mean)), 1), round(float(lengths.mean()), 1)) == (5.7, 5.9)


def repaired(layer: int, steps: str) -> Array:
    """The vectors of the judged sentences after steps that are fitted on the other texts."""
    return fit_steps(unjudged[layer], parse_steps(steps)).apply(judged[layer])


centred = repaired(1, "centre")
print(f"without the mean: mean cosine {mean_cosine(centred):.2f}, score {score(centred):.2f}")
assert (round(mean_cosine(centred), 1), round(score(centred), 2)) == (0.0, 0.22)

# %% [markdown]
# The mean vector is 5.7 long, and the vectors are 5.9: nearly all of a vector is the mean. Subtracting it opens the cone: the
# mean cosine becomes 0.0. The score rises to 0.22. Was that all?
#
# ## The direction that hides the rest
#
# What outweighs the rest once the mean is gone? The direction in which the vectors vary most shows it: the first eigenvector of
# their covariance.

# %%
counts = np.array([len(ids) + 2 for ids in model.tokenizer.plain([*sentences, *texts])])  # [CLS] and [SEP]
deviations = judged[1] - mean
variances, directions = np.linalg.eigh(deviations.T @ deviations)
first = directions[:, -1]
share = variances[-1] / variances.sum()
as_count = abs(np.corrcoef(deviations @ first, 1 / counts[: len(sentences)])[0, 1])
print(f"{share:.0%} of the variance; correlation with one over the number of tokens {as_count:.4f}")
assert (len(variances), round(float(share), 2)) == (384, 0.33)
assert as_count > 0.99

# %% [markdown]
# One direction of 384 holds 0.33 of the variance, and it says how many tokens a sentence has: its correlation with one over
# their number is above 0.99. That is no meaning. Why one *over* the number?
#
# ## A giant
#
# Because something of one size for all texts is divided by the number of tokens, as a mean does. Here are the lengths of the
# tokens' states in one sentence:

# %%
sentence = "The stone was raised by the hound on the street at dawn."
states = model.with_layers([1], ["mean"]).encode(sentence, output_value="token_embeddings")
token_lengths = np.linalg.norm(states, axis=1)
names = [token.name for token in model.explain(sentence).texts[0].tokens]
number = int(abs(states[0]).argmax())  # counted from zero

assert names[0] == "[CLS]" and round(token_lengths[0]) == 60 and token_lengths[1:].max() < 8
assert number == 99 and round(states[0, number]) == 60 and round(abs(first[number]), 2) == 0.95
assert mean_cosine(firsts[1]) > 0.999
bar_chart([*zip(names, token_lengths.tolist(), strict=True)], digits=1)

# %% [markdown]
# `[CLS]` is 60 long and all others less than 8, and nearly all of the 60 is a single number, number 99. The direction above is
# mostly that number, too (0.95). In all texts `[CLS]` is the same, with cosines above 0.999. So it says nothing; but the mean
# over the tokens holds the giant divided by their number: short sentences get much of it, long ones little.
#
# Such giants are in many transformers, mostly on the first token, whatever it is
# ([Sun et al. 2024](https://arxiv.org/abs/2402.17762)); GPT-2's is in the thousands. What they are good for is in
# [chapter 4](04_mlp_and_residual.py).
#
# The same giant in *every* text, the same size in each, would be harmless after centring. It hurts because it is divided by the
# number of tokens.
#
# ## Four repairs
#
# If that is right, then each of these has to bring the meaning back: leave `[CLS]` out of the mean (`gpt2wgpu study` calls that
# pooling `mean_without_first`); take the one direction out (`remove_top:1`); divide each number of a vector by its own spread,
# which makes the loud one as quiet as the others (`standardise`); or keep a sixth of the directions and scale all to the same
# variance (`whiten:64`).

# %%
n = counts[:, None]
without_first = [(n * x - f) / (n - 1) for x, f in zip(layers, firsts, strict=True)]
tested, fitted = without_first[1][: len(sentences)], without_first[1][len(sentences) :]
repairs = {
    "raw": raw[1],
    "centre": score(centred),
    "without [CLS], centre": score(fit_steps(fitted, parse_steps("centre")).apply(tested)),
    "remove_top:1": score(repaired(1, "remove_top:1")),
    "standardise": score(repaired(1, "standardise")),
    "whiten:64": score(repaired(1, "whiten:64")),
}
assert {name: round(s, 2) for name, s in repairs.items()} == {
    "raw": 0.16, "centre": 0.22, "without [CLS], centre": 0.31, "remove_top:1": 0.31, "standardise": 0.31, "whiten:64": 0.31,
}  # fmt: skip
bar_chart({**repairs, "last layer, raw": raw[6]}, digits=3)

# %% [markdown]
# They do: 0.31 all four, where centring alone reached 0.22 and the raw vectors 0.16. The vectors held this all along; their
# geometry hid it from the cosine. `standardise` is the repair for a few loud numbers, which
# [Timkey & van Schijndel 2021](https://aclanthology.org/2021.emnlp-main.372/) found in GPT-2 and BERT, too. A loud direction that
# is spread over all numbers it would not find. So look before you repair.
#
# ## A giant of one's own
#
# Is it the division? We put a giant where none is: into the good vectors of the last layer, once in full and once divided by the
# number of tokens.

# %%
GIANT, NUMBER = 300.0, 100


def with_giant(sizes: Array | float, steps: str) -> Array:
    """The last layer of the judged sentences with a giant in it, and then repaired."""
    x = layers[6].copy()
    x[:, NUMBER] += sizes
    repair = fit_steps(x[len(sentences) :], parse_steps(steps))
    return repair.apply(x[: len(sentences)])


giants = {
    "no giant": score(repaired(6, "centre")),
    "in full, centre": score(with_giant(GIANT, "centre")),
    "divided, centre": score(with_giant(GIANT / counts, "centre")),
    "divided, standardise": score(with_giant(GIANT / counts, "standardise")),
    "divided, remove_top": score(with_giant(GIANT / counts, "remove_top:1")),
}
assert {name: round(s, 2) for name, s in giants.items()} == {
    "no giant": 0.44, "in full, centre": 0.44, "divided, centre": 0.20, "divided, standardise": 0.44, "divided, remove_top": 0.43,
}  # fmt: skip
bar_chart(giants, digits=3)

# %% [markdown]
# In full it does no harm: centring leaves 0.44, as without a giant. Divided it costs more than half of the score and leaves 0.20,
# since the cosine now measures how long a text is. And both repairs bring it back, or nearly: `standardise` to 0.44,
# `remove_top:1` to 0.43.
#
# ## Take away
#
# A high mean cosine is no verdict: what is the same in all texts can be subtracted. What differs from text to text *without being
# meaning*, such as a giant divided by the number of tokens, has to be found first. `gpt2wgpu study` tries all repairs at all
# layers, and `--postprocess` applies one (`docs/postprocessing.md`). Here are three of them at every layer:

# %%
every = range(model.layers + 1)
curves = {
    name: [score(repaired(i, name)) for i in every] for name in ("centre", "remove_top:1", "standardise")
}
open_cones = [mean_cosine(x[: len(sentences)]) for x in without_first]
assert 0.2 < min(curves["centre"]) < 0.25 < min(curves["remove_top:1"])
assert round(max(max(curve[:6]) for curve in curves.values()), 2) == 0.37
assert round(max(curve[6] for curve in curves.values()), 2) == 0.44 and round(open_cones[5], 2) == 0.68
line_chart({"raw": raw, **curves}, across_name="layer")

# %% [markdown]
# `centre` falls below 0.25 in front, where the giant is louder than everything else. Further on the other tokens' rows grow, and
# it fades. The cone does not: without `[CLS]` it still has 0.68 after the fifth block, as the other tokens have much in common,
# too. But that is the same in all texts, and subtracted.
#
# And no repair makes the middle as good as the end: 0.37 at most, and 0.44 after the sixth block, where hardly anything is left
# to repair. The rest was not hidden. The last block and the norm behind it make it.
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/06_anisotropy.py` leaves them out.
#
# - Make `GIANT` ten times smaller and ten times larger. From which size on does the cosine measure lengths of texts?
# - Put the giant into three numbers of different sizes. Does `standardise` still repair it? Does `remove_top:1`?
# - Take the third layer instead of the first. Which direction varies most there?
