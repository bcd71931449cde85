# %% [markdown]
# # 1. Tokens
#
# A model computes with numbers, so a sentence must become numbers first. It is cut into *tokens*, pieces of text from a fixed
# list, the *vocabulary*, and each token is replaced by its place in that list, its *id*. Put a sentence of your own into `yours`
# and run the file again.

# %%
from collections import Counter
from itertools import pairwise

from shared import DATA_SETS, bar_chart

from gpt2wgpu import Encoder

model = Encoder(device="numpy")  # the built-in model; in numpy, for the same numbers everywhere
sentence = "A kitten is napping on the couch"
yours = "Write something here"
tokens, own = model.tokenizer.describe([sentence, yours])
for token in [*tokens, *own]:
    print(f"{token['id']:6}  {token['text']!r}")

assert len(sentence.split()) == 7 and len(tokens) == 8
assert [token["id"] for token in tokens] == [258, 3928, 295, 7022, 1597, 313, 262, 14644]
# %% [markdown]
# The sentence has 7 words and 8 tokens: "napping" is not in the vocabulary, so it became two pieces, 7022 and 1597. Most tokens
# begin with the space before the word, so the pieces put side by side are the text again.
#
# ## Where the vocabulary comes from
#
# Nobody wrote the list. It was counted, by *byte-pair encoding*: begin with single letters, find the pair of neighbours that is
# most frequent in a large text, make it one piece, and repeat. Here it is on twelve words (`_` is a space):


# %%
def merge_pair(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The pieces of a word with each occurrence of the pair as one piece."""
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


text = "nap naps napping map maps mapping sleep sleeping sit sitting run running"
words = [tuple("_" + word) for word in text.split()]
rules: list[tuple[str, str]] = []
for _ in range(6):
    pairs = Counter(pair for word in words for pair in pairwise(word))
    (best, count) = pairs.most_common(1)[0]
    rules.append(best)
    words = [merge_pair(word, best) for word in words]
    print(f"{count} times {best[0]:>3} {best[1]:<3}  napping is now  {' '.join(words[2])}")

assert rules[0] == ("a", "p") and ("in", "g") in rules
assert (len("_napping"), len(words[2])) == (8, 3)
# %% [markdown]
# "napping" shrank from 8 pieces to 3, and "ing" is one of them, because it was frequent: endings and stems appear by counting
# alone. The built-in model's vocabulary was made in the same way from a large text. A new word is cut by applying the rules in
# the order in which they were found:

# %%
steps = model.explain("napping").texts[0].words[0].steps  # ␣ is a space
for step in steps:
    print(" ".join(step))

assert steps[0] == tuple("␣napping") and steps[-1] == ("␣na", "pping")
vocabulary = model.tokenizer.vocabulary()
assert (len(steps) - 1, len(vocabulary)) == (6, 20480)
assert sum(len(piece) == 1 for piece in vocabulary) == 256
# %% [markdown]
# After 6 merges no neighbours have a rule left. The vocabulary holds 20,480 pieces; 256 of them are single bytes.
#
# ## Every text has tokens
#
# Frequent words are one token, rare ones several, and nothing is unknown, because any text is bytes. But what the counted text
# rarely held is expensive. The same sentence in five languages:

# %%
languages = {
    "The cat sleeps on the sofa": "English",
    "Le chat dort sur le canapé": "French",
    "Die Katze schläft auf dem Sofa": "German",
    "猫がソファで寝ている": "Japanese",
    "Кошка спит на диване": "Russian",
}
counts = {
    name: len(ids) for name, ids in zip(languages.values(), model.tokenizer.plain([*languages]), strict=True)
}
assert counts == {"English": 6, "French": 9, "German": 11, "Japanese": 31, "Russian": 38}

bar_chart(counts, digits=0)
# %% [markdown]
# 6 tokens in English, 38 in Russian, where nearly every byte is a token of its own. A model reads Russian in crumbs here, and
# computes six times as long. That is a property of the vocabulary, not of the language.
#
# ## What it costs
#
# Time and limits count tokens, not words. This model reads at most 512. In ordinary English a word is a little more than one:

# %%
rows = [line.split("\t") for line in (DATA_SETS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
sentences = [text for row in rows for text in row[1:3]]
n_tokens = sum(map(len, model.tokenizer.plain(sentences)))
n_words = sum(len(text.split()) for text in sentences)
n_letters = sum(map(len, sentences))
print(f"{len(sentences)} sentences: {n_words} words, {n_tokens} tokens, {n_letters} characters")

assert (model.max_seq_length, len(sentences)) == (512, 720)
assert round(n_tokens / n_words, 2) == 1.2 and round(n_letters / n_tokens, 1) == 4.4
# %% [markdown]
# In these 720 sentences a word takes 1.20 tokens, and a token 4.4 characters. A larger vocabulary makes texts shorter, but the
# model larger, because each token owns a row of numbers ([chapter 2](02_embeddings.py)). All rows together are

# %%
parameters = model.checkpoint.parameters
in_table = model.tokenizer.vocab * model.width
print(f"{in_table:,} of {parameters:,} numbers: {in_table / parameters:.0%} of the model")

assert (model.tokenizer.vocab, model.width, in_table, parameters) == (20480, 256, 5242880, 9323264)
assert round(100 * in_table / parameters) == 56
# %% [markdown]
# 56 % of the model is its token table.
#
# ## What is lost
#
# This tokenizer lowers all letters and unifies forms of a character first, so a few differences never reach the model:

# %%
for a, b in [
    ("KITTEN", "kitten"),
    ("ﬁsh", "fish"),
    ("kitten", "kittens"),
]:  # the second one begins with one letter, ﬁ
    ids_a, ids_b = (ids.tolist() for ids in model.tokenizer.plain([a, b]))
    print(f"{a} {ids_a}  {b} {ids_b}  {'same' if ids_a == ids_b else 'different'}")

capitals, small = model.encode(["KITTEN", "kitten"])
assert (capitals == small).all()
assert ids_a == [3928] and ids_b == [365, 540, 532]
# %% [markdown]
# And "kitten" and "kittens" have no token in common, 3928 against 365, 540, 532. That the two mean nearly the same is not in the
# ids: an id is a name, not a quantity.
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/01_tokens.py` leaves them out.
#
# 1. Find an English word that costs more than six tokens. Does a space before it, or a typing error in it, change its price?
# 2. Give the little byte-pair encoder more rounds, until no pair occurs twice. Which words are whole by then, and why those?
# 3. Put `print(model.tokenizer.decode([[i] for i in range(20000, 20480)]))` at the end: the last pieces that were found. Which
#    kinds of text were counted?
