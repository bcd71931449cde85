# %% [markdown]
# # 1. Tokens
#
# A model computes with numbers, so a sentence must become numbers first. It is cut into *tokens*, pieces of text from a fixed
# list, the *vocabulary*, and each token is replaced by its place in that list, its *id*. Put a sentence of your own into `yours`
# and run the file again.

# %%
from collections import Counter
from itertools import pairwise
from string import ascii_lowercase

from shared import DATA_SETS, bar_chart

from gpt2wgpu import Encoder

model = Encoder(device="numpy")  # the built-in model; in numpy, for the same numbers everywhere
vocabulary = model.tokenizer.vocabulary()
pieces = {i: piece for piece, i in vocabulary.items()}
sentence = "A kitten is napping on the couch"
yours = "Write something here"
tokens, own = model.tokenizer.describe([sentence, yours])
for token in [*tokens, *own]:
    print(f"{token['id']:6}  {pieces[token['id']]}")

assert len(sentence.split()) == 7 and len(tokens) == 10 and len(vocabulary) == 19712
assert [token["id"] for token in tokens] == [2, 42, 16529, 1008, 16891, 3696, 1011, 1001, 5416, 3]
# %% [markdown]
# The vocabulary holds 19,712 pieces. The sentence has 7 words and 10 tokens: "napping" is not in the list, so it became two,
# `nap` and `##ping`. The mark `##` says that a piece continues a word, so spaces need no token. And around every text stand
# `[CLS]` and `[SEP]`, tokens 2 and 3, a beginning and an end, which the model reads as it reads words.
#
# ## Where the vocabulary comes from
#
# Nobody wrote the list. It was counted from a large text. The plainest way is *byte-pair encoding*: begin with single letters,
# find the pair of neighbours that is most frequent, make it one piece, and repeat. Here it is on twelve words (`_` is a space):


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
# alone. The built-in model's list is the larger part of BERT's. It was counted from a large text as well; how exactly, its
# makers did not publish.
#
# ## Cutting a new word
#
# GPT-2 cuts a word by applying the rules in the order in which they were found. BERT and the built-in model need no rules, only
# the list: they take the longest piece with which the word begins, then the longest one that continues it, and so on. This is
# called *WordPiece*.


# %%
def cut_word(word: str) -> list[str]:
    """The longest known piece at each place, from the left; [UNK] if a place has none."""
    found: list[str] = []
    while word:
        mark = "##" if found else ""
        ends = [end for end in range(len(word), 0, -1) if mark + word[:end] in vocabulary]
        if not ends:
            return ["[UNK]"]
        found.append(mark + word[: ends[0]])
        word = word[ends[0] :]
    return found


by_rules = tuple("_lapping")
for rule in rules:
    by_rules = merge_pair(by_rules, rule)
print("by our rules:", " ".join(by_rules))
for word in ("sleeping", "napping", "unhappiness"):
    print(f"from the list: {' '.join(cut_word(word))}")

assert "".join(by_rules) == "_lapping" and by_rules[-1] == "ing"
assert tuple(cut_word("napping")) == model.explain("napping").texts[0].words[0].steps[-1]
assert cut_word("unhappiness") == ["un", "##ha", "##pp", "##iness"] and len(cut_word("unhappiness")) == 4
assert len(cut_word("sleeping")) == 1 and "happiness" in vocabulary
assert {f"{mark}{letter}" for mark in ("", "##") for letter in ascii_lowercase} <= vocabulary.keys()
# %% [markdown]
# "sleeping" is frequent, so it is 1 token. "unhappiness" becomes 4, and none of them says "happy": the cut knows letters, not
# sense, although the list holds "happiness" as a word.
#
# ## What has no piece
#
# The list holds every letter from a to z, so any English word can be cut, at worst into letters. Of other scripts it holds few
# signs. A word with a sign that has no piece becomes `[UNK]`, *unknown*. The same sentence in five languages, and with emoji:

# %%
languages = {
    "The cat sleeps on the sofa": "English",
    "Le chat dort sur le canapé": "French",
    "Die Katze schläft auf dem Sofa": "German",
    "Кошка спит на диване": "Russian",
    "猫がソファで寝ている": "Japanese",
    "🐈💤🛋️": "emoji",
}
unknown = {}
for text, name in languages.items():
    (ids,) = model.tokenizer.plain([text])
    unknown[name] = 100 * (ids == vocabulary["[UNK]"]).mean()  # per cent
    print(f"{name:9}{' '.join(pieces[i] for i in ids.tolist())}")

assert len(model.tokenizer.plain(["The cat sleeps on the sofa"])[0]) == 6
assert len(model.tokenizer.plain(["Die Katze schläft auf dem Sofa"])[0]) == 11
assert unknown == {"English": 0, "French": 0, "German": 0, "Russian": 60, "Japanese": 100, "emoji": 100}
cat, dog = model.encode(["Кошка спит", "Собака лает"])
assert (cat == dog).all() and len("Кошка".encode()) == 10

bar_chart(unknown, digits=0)
# %% [markdown]
# German costs 11 tokens where English costs 6, but nothing is missing. Of the Russian sentence 60 % of the tokens are `[UNK]`,
# of the Japanese one and of the emoji 100 %. An unknown word is not a hard one, it is gone: "Кошка спит" (the cat sleeps) and
# "Собака лает" (the dog barks) are both `[UNK] [UNK]`, and the model gives them the same vector.
#
# GPT-2 knows no unknown word. Its list was counted over bytes, not letters, and holds every single byte, so any text has tokens:
# "Кошка" is at most 10, one for each of its bytes. Nothing is lost, but a text in a rare script is read in crumbs. That is a
# property of the vocabulary, not of the language.
#
# ## What it costs
#
# Time and limits count tokens, not words. This model reads at most 512, `[CLS]` and `[SEP]` included. In ordinary English a word
# is a little more than one:

# %%
rows = [line.split("\t") for line in (DATA_SETS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]]
sentences = [text for row in rows for text in row[1:3]]
n_tokens = sum(map(len, model.tokenizer.plain(sentences)))
n_words = sum(len(text.split()) for text in sentences)
n_letters = sum(map(len, sentences))
print(f"{len(sentences)} sentences: {n_words} words, {n_tokens} tokens, {n_letters} characters")

assert (model.max_seq_length, len(sentences)) == (512, 720)
assert round(n_tokens / n_words, 2) == 1.17 and round(n_letters / n_tokens, 1) == 4.5
# %% [markdown]
# In these 720 sentences a word takes 1.17 tokens, and a token 4.5 characters. A larger vocabulary makes texts shorter, but the
# model larger, because each token owns a row of numbers ([chapter 2](02_embeddings.py)). All rows together are

# %%
parameters = model.checkpoint.parameters
in_table = model.tokenizer.vocab * model.width
print(f"{in_table:,} of {parameters:,} numbers: {in_table / parameters:.0%} of the model")

assert (model.tokenizer.vocab, model.width, in_table, parameters) == (19712, 384, 7569408, 16051200)
assert round(100 * in_table / parameters) == 47
# %% [markdown]
# 47 % of the model is its token table.
#
# ## What is lost
#
# This tokenizer lowers all letters and takes their accents off first, so some differences never reach the model:

# %%
for a, b in [
    ("KITTEN", "kitten"),
    ("résumé", "resume"),
    ("US", "us"),
    ("kitten", "kittens"),
    ("cat", "cats"),
]:
    ids_a, ids_b = (ids.tolist() for ids in model.tokenizer.plain([a, b]))
    print(f"{a} {ids_a}  {b} {ids_b}  {'same' if ids_a == ids_b else 'different'}")

country, pronoun = model.encode(["US", "us"])
assert (country == pronoun).all()
assert ids_a == [3942] and ids_b == [7875]
# %% [markdown]
# A country and a pronoun become one. And while "kittens" holds the token of "kitten", "cat" and "cats" have none in common, 3942
# against 7875. That the two mean nearly the same is not in the ids: an id is a name, not a quantity.
#
# ## Try
#
# The asserts hold for the text as it is. After a change, `python -O docs/learn/01_tokens.py` leaves them out.
#
# 1. Find an English word that costs more than six tokens. Does a typing error in it change its price?
# 2. Give the little byte-pair encoder more rounds, until no pair occurs twice. Which words are whole by then, and why those?
# 3. Put `print([pieces[i] for i in range(1000, 1100)])` at the end, then the same from `19000` on. By what is the list ordered?
