"""Write a BERT sentence model as a smaller GPT-2, from which training goes on: the start of the built-in model.

    python benchmarks/built_in/from_teacher.py TEACHER FOLDER --texts FILE [--texts FILE ...] --vocab 19712 --hidden 1024

A BERT normalises after each addition, y = LN(y + F(y)), and GPT-2 before each function, r = r + F(LN(r)). Both are the same as
long as GPT-2's norm gives y: r is then y + F(y) in other units. A residual stream cannot change its units, and LN does, by
weight / standard deviation in each column, so a layer writes here in the units of the stream at its place,

    units of sublayer s = units of sublayer s-1 * (median standard deviation of y + F(y)) / (weight of its norm),

with the norm's bias added to the layer's. Tokens whose standard deviation is not the median one are off by as much; norms'
weights and biases are then fitted on TEXTS, column by column, to what the BERT has there. Position and type vectors are as they
were. Attention sees the whole text (`"is_causal": false`).

The vocabulary keeps the tokens that are frequent in TEXTS and in BERT's own order; other words become smaller pieces. An MLP
keeps those of its hidden units that tell its output best, and its second matrix is fitted to that output (`fewer_units`).
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from gpt2wgpu.graph.ops.activations import GELU_ERF, gelu
from gpt2wgpu.graph.tensor import Array
from gpt2wgpu.train.from_scratch import write_sentence_model

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
FITTED = 600  # texts of each file that the norms are fitted on
SCALE = 4.0  # of the residual stream, which no norm notices: AdamW's steps suit weights of about this size
EPS = 1e-5
CONTEXT = 512

Weights = dict[str, Array]


def kept_tokens(vocab: dict[str, int], counts: Array, size: int) -> list[str]:
    """The tokens that are kept: special ones, single characters of ASCII, then by the mean of two ranks, in TEXTS and in the
    vocabulary, whose order is by frequency."""
    used = {token: i for token, i in vocab.items() if not token.startswith("[unused") and token != "[MASK]"}
    letters = [t for t in used if len(t.removeprefix("##")) == 1 and t.isascii()]
    rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable") + np.arange(len(counts))
    rest = sorted(used.keys() - set(SPECIAL) - set(letters), key=lambda t: (rank[used[t]], used[t]))
    found = [*SPECIAL, *letters, *rest][:size]
    return [*SPECIAL, *sorted(found[len(SPECIAL) :], key=lambda t: used[t])]


def smaller_tokenizer(fields: dict[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """tokenizer.json with these tokens alone, numbered in this order."""
    new = {token: i for i, token in enumerate(tokens)}
    post = fields["post_processor"]
    special = {name: {**s, "ids": [new[name]]} for name, s in post["special_tokens"].items()}
    added = [{**token, "id": new[token["content"]]} for token in fields["added_tokens"] if token["content"] in new]
    model = fields["model"] | {"vocab": new}
    post = post | {"special_tokens": special}
    return fields | {"truncation": None, "padding": None, "added_tokens": added, "post_processor": post, "model": model}


def count_tokens(tokenizer: Tokenizer, files: Sequence[Path], size: int) -> Array:
    """How often each token occurs in the texts."""
    counts = np.zeros(size, np.int64)
    for path in files:
        with path.open(encoding="utf-8") as file:
            while lines := [*islice(file, 20_000)]:
                for found in tokenizer.encode_batch([line.rstrip("\n") for line in lines], add_special_tokens=False):
                    counts += np.bincount(found.ids, minlength=size)
    return counts


def normalised(x: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)


def fewer_units(h: Array, weight: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` columns of h (T, K) that tell h @ weight best, a matrix (count, N) and a bias (N,) with which they tell it.

    Columns are chosen one by one, each time the one whose share of the product is least told by those before (a Cholesky
    factorisation with pivots); the matrix and the bias are fitted to the product by least squares.
    """
    mean = h.mean(0, dtype=np.float64)
    off = h - mean.astype(np.float32)
    gram = (off.T @ off).astype(np.float64) / len(h)
    size = np.linalg.norm(weight, axis=1).astype(np.float64)
    shares = gram * size * size[:, None]
    left = np.diagonal(shares).copy()
    factor = np.zeros((len(gram), count))
    kept: list[int] = []
    for i in range(count):
        best = int(np.argmax(left))
        factor[:, i] = (shares[:, best] - factor[:, :i] @ factor[best, :i]) / np.sqrt(left[best])
        left -= factor[:, i] ** 2
        left[best] = -np.inf
        kept.append(best)
    kept.sort()
    inner = gram[np.ix_(kept, kept)]
    ridge = 1e-4 * np.trace(inner) / count * np.eye(count)
    fitted = np.linalg.solve(inner + ridge, gram[kept] @ weight + ridge @ weight[kept])
    return np.array(kept), fitted, mean @ weight - mean[kept] @ fitted


class Bert:
    """A BERT's functions, on tokens (T, C) of several texts at once. ends: where each text ends."""

    def __init__(self, weights: Weights, config: dict[str, Any]) -> None:
        self.w, self.heads, self.layers = weights, config["num_attention_heads"], config["num_hidden_layers"]
        self.eps = config["layer_norm_eps"]

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norms(self) -> list[tuple[Array, Array]]:
        """Weight and bias of each norm, in order."""
        names = ["embeddings.LayerNorm"]
        for i in range(self.layers):
            names += [f"encoder.layer.{i}.attention.output.LayerNorm", f"encoder.layer.{i}.output.LayerNorm"]
        return [(self.w[f"{name}.weight"], self.w[f"{name}.bias"]) for name in names]

    def hidden(self, s: int, y: Array) -> Array:
        """The hidden units of the MLP."""
        found = self.linear(y, f"encoder.layer.{s // 2}.intermediate.dense")
        gelu(found, GELU_ERF)
        return found

    def sublayer(self, s: int, y: Array, ends: Sequence[int]) -> Array:
        """What attention (even s) or the MLP (odd s) adds to y."""
        layer = f"encoder.layer.{s // 2}"
        if s % 2:
            return self.linear(self.hidden(s, y), f"{layer}.output.dense")
        q, k, v = (self.linear(y, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        out = np.empty_like(y)
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            a, b, c = (x[first:end].reshape(end - first, self.heads, -1).transpose(1, 0, 2) for x in (q, k, v))
            scores = a @ b.transpose(0, 2, 1) / np.float32(np.sqrt(a.shape[-1]))
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            out[first:end] = (shares / shares.sum(-1, keepdims=True) @ c).transpose(1, 0, 2).reshape(end - first, -1)
        return self.linear(out, f"{layer}.attention.output.dense")


class Conversion:
    """The weights of GPT-2, found sublayer by sublayer on the tokens of some texts."""

    def __init__(self, bert: Bert, ids: Sequence[Sequence[int]], hidden: int) -> None:
        self.bert, self.hidden, self.ends = bert, hidden, np.cumsum([len(text) for text in ids]).tolist()
        words, places, types = (bert.w[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position", "token_type"))
        self.ids = np.concatenate([np.asarray(text) for text in ids])
        self.places = np.concatenate([np.arange(len(text)) for text in ids])
        middle = places[:64].mean(0)  # of the positions that most texts have
        embedded = words + types[0] + middle
        z = embedded[self.ids] + (places - middle)[self.places]
        usual = np.median(z.std(-1))
        self.found: Weights = {
            "wte.weight": SCALE * embedded * (usual / embedded.std(-1, keepdims=True)),
            "wpe.weight": SCALE * (places - middle)[:CONTEXT],
        }
        self.z = z  # of the BERT, before each norm
        self.stream = self.found["wte.weight"][self.ids] + self.found["wpe.weight"][self.places]
        self.units = np.full(words.shape[1], SCALE, np.float32)

    def fit_norm(self, name: str, s: int) -> Array:
        """The norm before sublayer s, or ln_f, so that it gives what the BERT's norm s gives. Returns what it gives."""
        weight, bias = self.bert.norms()[s]
        self.y = normalised(self.z, self.bert.eps) * weight + bias
        x = normalised(self.stream, EPS)
        off = x - x.mean(0)
        g = (off * (self.y - self.y.mean(0))).mean(0) / (off * off).mean(0)
        b = self.y.mean(0) - g * x.mean(0)
        self.found[f"{name}.weight"], self.found[f"{name}.bias"] = g, b
        left = ((x * g + b - self.y) ** 2).sum() / ((self.y - self.y.mean(0)) ** 2).sum()
        print(f"{name}: {left:.4f} of the variance is not explained", flush=True)
        return x * g + b

    def add_sublayer(self, s: int, y: Array) -> None:
        """Attention or the MLP reads y and writes into the stream, in its units here. Also advances the BERT."""
        w, layer, h = self.bert.w, f"encoder.layer.{s // 2}", f"h.{s // 2}"
        weight, bias = self.bert.norms()[s]
        self.units = self.units * np.median(self.z.std(-1)) / weight
        if s % 2:
            reads, writes = [f"{layer}.intermediate.dense"], f"{layer}.output.dense"
            names = f"{h}.mlp.c_fc", f"{h}.mlp.c_proj"
            kept, matrix, more = fewer_units(self.bert.hidden(s, self.y), w[f"{writes}.weight"].T, self.hidden)
            added = self.bert.hidden(s, y)[:, kept] @ matrix + w[f"{writes}.bias"] + more
        else:
            reads, writes = [f"{layer}.attention.self.{n}" for n in ("query", "key", "value")], f"{layer}.attention.output.dense"
            names = f"{h}.attn.c_attn", f"{h}.attn.c_proj"
            kept, matrix, more = slice(None), w[f"{writes}.weight"].T, 0
            added = self.bert.sublayer(s, y, self.ends)
        self.found[f"{names[0]}.weight"] = np.concatenate([w[f"{r}.weight"].T for r in reads], 1)[:, kept]
        self.found[f"{names[0]}.bias"] = np.concatenate([w[f"{r}.bias"] for r in reads])[kept]
        self.found[f"{names[1]}.weight"] = matrix * self.units
        self.found[f"{names[1]}.bias"] = (w[f"{writes}.bias"] + more + bias) * self.units
        self.stream = self.stream + ((added + bias) * self.units).astype(np.float32)
        self.z = self.y + self.bert.sublayer(s, self.y, self.ends)

    def run(self) -> Weights:
        for s in range(2 * self.bert.layers):
            self.add_sublayer(s, self.fit_norm(f"h.{s // 2}.ln_{1 + s % 2}", s))
        self.fit_norm("ln_f", 2 * self.bert.layers)
        return self.found


def write_folder(folder: Path, weights: Weights, bert: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """A sentence-transformers folder in float32."""
    vocab, width = weights["wte.weight"].shape
    config = {"model_type": "gpt2", "vocab_size": vocab, "n_positions": CONTEXT, "n_embd": width}
    config |= {"n_inner": weights["h.0.mlp.c_fc.bias"].size}
    config |= {"n_layer": bert["num_hidden_layers"], "n_head": bert["num_attention_heads"], "activation_function": "gelu"}
    config |= {"layer_norm_epsilon": EPS, "is_causal": False, "architectures": ["GPT2Model"], "torch_dtype": "float32"}
    config |= {"bos_token_id": SPECIAL.index("[CLS]"), "eos_token_id": SPECIAL.index("[SEP]"), "pad_token_id": 0}
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named, "model_max_length": CONTEXT}
    settings |= {"model_input_names": ["input_ids", "attention_mask"]}
    folder.mkdir()
    made = {name: np.ascontiguousarray(array, np.float32) for name, array in weights.items()}
    write_sentence_model(folder, config, made)
    limits = {"max_seq_length": CONTEXT, "do_lower_case": False}
    files = {"tokenizer_config.json": settings, "tokenizer.json": tokenizer, "sentence_bert_config.json": limits}
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_some(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in islice(file, FITTED))


def write_start(teacher: Path, folder: Path, texts: Sequence[Path], vocab: int, hidden: int) -> None:
    """The folder from which training goes on. vocab: tokens that are kept. hidden: units of each MLP that are kept."""
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    fields = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    weights = {name: a for name, a in load_file(teacher / "model.safetensors").items() if a.dtype == np.float32}
    tokenizer = Tokenizer.from_str(json.dumps(fields | {"truncation": None, "padding": None}))
    known = fields["model"]["vocab"]
    tokens = kept_tokens(known, count_tokens(tokenizer, texts, len(known)), vocab)
    smaller = smaller_tokenizer(fields, tokens)
    table = "embeddings.word_embeddings.weight"
    weights[table] = weights[table][[known[token] for token in tokens]]
    reader = Tokenizer.from_str(json.dumps(smaller))
    ids = [found.ids[:CONTEXT] for found in reader.encode_batch([*read_some(texts)])]
    write_folder(folder, Conversion(Bert(weights, config), ids, hidden).run(), config, smaller)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=Path, action="append", required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    o = parser.parse_args()
    write_start(o.teacher, o.folder, o.texts, o.vocab, o.hidden)


if __name__ == "__main__":
    main()
