"""Broken model folders, made from a seed: each is opened and encodes two texts, or is refused in one line.

    python tests/fuzz_folders.py FIRST COUNT [FOLDER]     prints what went wrong, one line a seed, and its traceback

Case number n changes one or two files of a golden folder: values of JSON files, or bytes of any file. The same n gives the same
folder. What a process cannot take, such as 4 GB, fails as an exception of its own.
"""

import copy
import json
import random
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

from gpt2wgpu import Encoder, UserError

GOLDEN = Path(__file__).parent / "golden" / "sentence_models"
FOLDERS = ("old_bert_mean", "old_bert_cls_max_dense", "old_gpt2_last", "new_bert_layer_norm", "old_mpnet_mean", "new_qwen3_last")
FOLDERS = (*FOLDERS, "old_roberta_weighted_last", "plain_gpt_neo", "new_distilbert_mean", "new_xlmr_max_mean")
MEMORY = 4 << 30  # bytes of addresses
DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
NUMBERS = [0, 1, -1, 2, 3, 7, 1 << 31, 1 << 40, 1 << 63, 10**30, 10**400, 0.5, 1e-300, 1e300, 1e999, -1e999, float("nan")]
TEXTS = ["", "a", "relu", "mean", "../x", "/etc/passwd", "x" * 5000, "\ud800", "a\nb", "\0", "cosine", "sentence_embedding"]
OTHERS = [None, True, False, [], {}, [[]], [{}], {"a": {}}, {"text": {}}, DEEP, ["a"] * 1000, [1, "a", None]]
VALUES = [*NUMBERS, *TEXTS, *OTHERS]


def places(value: Any, depth: int = 12) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with every key or index of it, down to a depth."""
    found = []
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []:
        found += [(value, key), *(places(value[key], depth - 1) if depth else [])]
    return found


def any_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def change_json(rng: random.Random, text: str) -> str:
    value = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = places(value)
        if not at or rng.random() < 0.02:
            return json.dumps(any_value(rng))
        container, key = rng.choice(at[:400])
        how = rng.random()
        if how < 0.15:
            del container[key]
        elif how < 0.25 and isinstance(container, dict):
            container[rng.choice(("tomorrow", "", key + "_", "a" * 300))] = any_value(rng)
        elif how < 0.35:
            container[key] = copy.deepcopy(rng.choice(at)[0])
        else:
            container[key] = any_value(rng)
    return json.dumps(value)


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    near = rng.randrange(min(len(data), 400) + 1)  # most of what can go wrong is in the header
    how = rng.randrange(6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:near] + rng.randbytes(rng.choice((1, 8, 100))) + data[near:]
    if how == 2:
        return data[:near] + bytes([rng.randrange(256)]) + data[near + 1 :]
    if how == 3:
        return data[:at] + rng.randbytes(4) + data[at + 4 :]
    if how == 4:
        return data[near:]
    return data + rng.randbytes(rng.choice((1, 1000)))


def make_folder(number: int, root: Path) -> tuple[Path, str]:
    """The folder of a case, and what was changed."""
    rng = random.Random(number)
    folder = root / str(number)
    shutil.copytree(GOLDEN / rng.choice(FOLDERS), folder)
    (folder / "expected.npz").unlink()
    changed = []
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and (p.name != "tokenizer.json" or rng.random() < 0.2))
        file = rng.choice(files)
        changed.append(file.relative_to(folder).as_posix())
        if rng.random() < 0.03:
            file.unlink()
        elif file.suffix == ".json" and rng.random() < 0.8:
            try:
                file.write_text(change_json(rng, file.read_text("utf-8")), "utf-8", errors="surrogatepass")
            except ValueError:  # the second change of this file
                file.write_bytes(b"")
        else:
            file.write_bytes(change_bytes(rng, file.read_bytes()))
    return folder, " and ".join(changed)


def outcome(folder: Path) -> str:
    """ "loaded", "refused", or what is wrong."""
    try:
        Encoder(folder, device="numpy").encode(["The cat is sleeping", "a b c"])
        return "loaded"
    except UserError as e:
        message = str(e)
        return "refused" if "\n" not in message and len(message) < 1000 else f"a long line: {message!r}"
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        traceback.print_exc()
        return f"{type(e).__name__}"


def main(first: int, count: int, kept: str | None = None) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(first, first + count):
            folder, changed = make_folder(number, Path(kept or temporary))
            found = outcome(folder)
            kind = found if found in ("loaded", "refused") else "wrong"
            counts[kind] = counts.get(kind, 0) + 1
            if kind == "wrong":
                print(f"case {number} ({changed}): {found}", flush=True)
            if not kept:
                shutil.rmtree(folder)
    print(", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    return 1 if "wrong" in counts else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4]))
