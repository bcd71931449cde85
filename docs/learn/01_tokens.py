# %% [markdown]
# # 1. Tokens
#
# A model computes with numbers, so a sentence must become numbers first. It is cut into *tokens*, pieces of text from a fixed
# list, the *vocabulary*, and each token is replaced by its place in that list, its *id*. Put a sentence of your own here and run
# the file again.

# %%
from gpt2wgpu import Encoder

model = Encoder(device="numpy")  # the built-in model; numpy gives everybody the same numbers
sentence = "A kitten is napping on the couch"
(tokens,) = model.tokenizer.describe([sentence])
for token in tokens:
    print(f"{token['id']:6}  {token['text']!r}")

assert len(tokens) == 8 and len(sentence.split()) == 7
assert [token["id"] for token in tokens] == [258, 3928, 295, 7022, 1597, 313, 262, 14644]
# %% [markdown]
# The sentence has 7 words and 8 tokens: "napping" is not in the vocabulary, so it is cut in two, 7022 and 1597. Most tokens begin
# with the space before the word; so the tokens put side by side are the text again, and nothing is lost.
