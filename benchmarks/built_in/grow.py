"""Grow a GPT-2 sentence model: wider, deeper, attending in both directions, so that training goes on where the smaller one ended.

    python benchmarks/built_in/grow.py MODEL GROWN --texts TEXTS.txt --vectors TEXTS.npy --layers 6 --width 384 [--bidirectional]
    python benchmarks/built_in/grow.py --rotate GROWN/directions.npy VECTORS.npy ROTATED.npy

MODEL imitates a teacher in fewer dimensions than the teacher has. TEXTS.npy holds the teacher's vectors of TEXTS.txt. GROWN
starts with MODEL's vectors, and zeros in the new dimensions. Its coordinates are not the teacher's: GROWN/directions.npy turns
the teacher's vectors into them, which changes no cosine, and `train --teacher-vectors` takes the rotated ones.

What is preserved, and how: new columns of the residual stream hold 0, new heads and hidden units write 0. A norm over C columns
of which C - C0 hold 0 divides by a standard deviation that is sqrt(C0 / C) times as large if the rest has mean 0, so all
that writes into the stream is centred first, which no norm notices, and norms' weights are scaled by sqrt(C0 / C)
(Chen et al. 2016, Net2Net; Shen et al. 2022, Staged training). Attention in both directions changes the vectors at once;
training repairs that in some dozen steps, but not the order of words where the mask alone told it (benchmarks/LOG.md).
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gpt2wgpu import Encoder
from gpt2wgpu.errors import UserError
from gpt2wgpu.graph.tensor import Array

STD = 0.02  # of new weights that read, as in GPT-2
WRITING_STD = 0.002  # of new weights that write into new columns, from heads and hidden units that are there already
FITTED = 24_000  # texts at most that the directions are fitted on

Weights = dict[str, Array]


def find_directions(student: Array, teacher: Array, width: int) -> Array:
    """An orthonormal matrix (width of the teacher, width) that turns the teacher's vectors into the grown model's coordinates.

    student (n, C0), teacher (n, C): vectors of the same texts. The first C0 columns are the best rotation in the sense of least
    squares (Schönemann 1966), the others the leading directions of what these leave.
    """
    student, teacher = student.astype(np.float64), teacher.astype(np.float64)
    left, _, right = np.linalg.svd(teacher.T @ student)
    known, other = left[:, : student.shape[1]] @ right, left[:, student.shape[1] :]
    rest = teacher @ other
    more = other @ np.linalg.eigh(rest.T @ rest)[1][:, ::-1][:, : width - student.shape[1]]
    return np.concatenate([known, more], axis=1).astype(np.float32)


def centred(rows: Array) -> Array:
    return rows - rows.mean(-1, keepdims=True)


def padded(rows: Array, width: int) -> Array:
    """Zeros in new last columns."""
    return np.concatenate([rows, np.zeros((*rows.shape[:-1], width - rows.shape[-1]), np.float32)], axis=-1)


def grow_weights(old: Weights, layers: int, width: int, seed: int = 0) -> Weights:
    """The weights of GPT-2 with more layers and a greater width, and heads of the same size; see above."""
    rng = np.random.default_rng(seed)
    C0, before = old["wte.weight"].shape[1], sum(name.endswith(".ln_1.weight") for name in old)
    ratio = np.float32(np.sqrt(C0 / width))

    def normal(rows: int, columns: int, std: float = STD) -> Array:
        return rng.standard_normal((rows, columns), np.float32) * np.float32(std)

    def reading(weight: Array, bias: Array) -> tuple[Array, Array]:
        """A layer that reads the stream."""
        new = normal(width, weight.shape[1] * width // C0)
        new[:C0, : weight.shape[1]] = weight
        return new, padded(bias, new.shape[1])

    def writing(weight: Array, bias: Array) -> tuple[Array, Array]:
        """A layer that writes into the stream: zeros from what is new, a little from what is old into new columns."""
        new = np.zeros((weight.shape[0] * width // C0, width), np.float32)
        new[: len(weight), :C0] = centred(weight)
        new[: len(weight), C0:] = normal(len(weight), width - C0, WRITING_STD)
        return new, padded(centred(bias), width)

    found: Weights = {}

    def put(name: str, weight: Array, bias: Array) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = weight, bias

    def put_norm(name: str) -> None:
        weight = old[f"{name}.weight"] * ratio
        mean = np.full(width - C0, weight.mean(), np.float32)
        put(name, np.concatenate([weight, mean]), padded(old[f"{name}.bias"], width))

    for name in ("wte", "wpe"):
        found[f"{name}.weight"] = padded(centred(old[f"{name}.weight"]), width)
    for i in range(layers):
        h = f"h.{i}"
        if i < before:
            put_norm(f"{h}.ln_1")
            put_norm(f"{h}.ln_2")
            parts = zip(np.split(old[f"{h}.attn.c_attn.weight"], 3, 1), np.split(old[f"{h}.attn.c_attn.bias"], 3), strict=True)
            qkv = [reading(weight, bias) for weight, bias in parts]
            put(f"{h}.attn.c_attn", *(np.concatenate(part, axis=-1) for part in zip(*qkv, strict=True)))
            put(f"{h}.mlp.c_fc", *reading(old[f"{h}.mlp.c_fc.weight"], old[f"{h}.mlp.c_fc.bias"]))
            for name in ("attn.c_proj", "mlp.c_proj"):
                put(f"{h}.{name}", *writing(old[f"{h}.{name}.weight"], old[f"{h}.{name}.bias"]))
            continue
        for name in ("ln_1", "ln_2"):
            put(f"{h}.{name}", np.ones(width, np.float32), np.zeros(width, np.float32))
        for name, inputs, outputs in (("attn.c_attn", width, 3 * width), ("mlp.c_fc", width, 4 * width)):
            put(f"{h}.{name}", normal(inputs, outputs), np.zeros(outputs, np.float32))
        for name, inputs in (("attn.c_proj", width), ("mlp.c_proj", 4 * width)):
            put(f"{h}.{name}", np.zeros((inputs, width), np.float32), np.zeros(width, np.float32))
    put_norm("ln_f")
    return found


def grow_folder(model: Path, target: Path, layers: int, width: int, bidirectional: bool) -> None:
    """Copy a folder of float weights with a grown model in it. Raises UserError."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    size = config["n_embd"] // config["n_head"]
    if config["model_type"] != "gpt2" or width % size or width <= config["n_embd"] or layers < config["n_layer"]:
        found = f"{config['model_type']} with {config['n_layer']} layers of {config['n_embd']} and heads of {size}"
        raise UserError(f"{model} is {found}: expected a GPT-2, at least as many layers, and a larger multiple of the head size")
    old = {name: array.astype(np.float32) for name, array in load_file(model / "model.safetensors").items()}
    shutil.copytree(model, target)
    config |= {"n_layer": layers, "n_embd": width, "n_head": width // size, "torch_dtype": "float32"}
    config |= {"is_causal": False} if bidirectional else {}
    pooling = json.loads((model / "1_Pooling" / "config.json").read_text(encoding="utf-8")) | {"word_embedding_dimension": width}
    for name, values in (("config.json", config), ("1_Pooling/config.json", pooling)):
        (target / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(grow_weights(old, layers, width), target / "model.safetensors", metadata={"format": "pt"})


def rotate_vectors(directions: Path, source: Path, target: Path) -> None:
    """The vectors of `source`, .npy (n, C), in the coordinates of a grown model, as float16."""
    np.save(target, (np.load(source).astype(np.float32) @ np.load(directions)).astype(np.float16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("--rotate", action="store_true", help="PATHs: directions.npy, the vectors, the file to write")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--vectors", type=Path, help="the teacher's vectors of these texts")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--bidirectional", action="store_true")
    o = parser.parse_args()
    if len(o.paths) != 2 + o.rotate or not (o.rotate or (o.texts and o.vectors)):
        parser.error("give MODEL GROWN --texts FILE --vectors FILE, or --rotate and three files")
    if o.rotate:
        return rotate_vectors(*o.paths)
    model, target = o.paths
    texts = o.texts.read_text(encoding="utf-8").split("\n")[:-1][:FITTED]
    teacher = np.load(o.vectors, mmap_mode="r")[: len(texts)].astype(np.float32)
    student = Encoder(model, device="numpy").encode(texts, normalize_embeddings=True)
    grow_folder(model, target, o.layers, o.width, o.bidirectional)
    np.save(target / "directions.npy", find_directions(student, teacher, o.width))


if __name__ == "__main__":
    main()
