"""Random command lines, from a seed: each is done, or refused in a line or by its usage. GPT2WGPU_FUZZ sets their number."""

import os
import random
import re
from pathlib import Path

import pytest
from corpora import tiny_model
from process import Run

CASES = int(os.environ.get("GPT2WGPU_FUZZ", "150"))
FILES = {
    "texts.txt": b"t1 t2\n\nt3\n",
    "pairs.tsv": b"sentence1\tsentence2\tlabel\nt1\tt2\t1\nt3\tt4\t0\n",
    "a.jsonl": b'{"text": "t1"}\n{"text": "t2"}\n',
    "broken.jsonl": b'{"text": ',
    "latin.txt": b"\xe9\n",
    "empty.csv": b"",
}
COMMANDS = ("embed", "similarity", "evaluate", "models", "pull", "info", "doctor", "profile", "tokens count", "tokens create")
OPTIONS = (
    *("--sentence", "--input", "-i", "--column", "--output", "-o", "--resume", "--precision", "--sentence1", "--sentence2"),
    *("--matrix", "--all-metrics", "--json", "--prompt", "--prompt-name", "--normalize", "--no-truncate", "--revision"),
    *("--layer", "--pooling", "--truncate-dim", "--max-seq-length", "--max-tokens", "--data", "--layers", "--plot", "--dtype"),
    *("--text", "--vocab", "--texts", "--tokens", "--characters", "--help", "--nonsense", "-x"),
)
VALUES = (
    *FILES,
    *("t1", "", " ", "-", "--", "0", "1", "-1", "2", "99", "1e3", "nan", "10" * 40, "x" * 5000, "mean", "cls", "float32", "int8"),
    *("all", "0,1", "0-1", "text", "out.npy", "out.json", "out.tsv", "out/", "out.xls", "a.png", "no/out.npy", ".", "no/", "./"),
    *("\x1b[31m", "line\nend", "é🙂", "not UTF-8 \udce9", "gpt2", "org/name", "../x", "main", "binary"),
)


def random_line(chance: random.Random) -> list[str]:
    """Mostly what some command could take: half of the lines have what their command needs."""
    command = chance.choice(COMMANDS)
    needed = {
        "embed": ["t1"],
        "similarity": ["--sentence1", "t1", "--sentence2", "t2"],
        "evaluate": ["--data", "pairs.tsv"],
        "tokens count": ["texts.txt"],
        "tokens create": ["texts.txt", "-o", "voc"],
    }
    line = [*command.split(), *(needed.get(command, []) if chance.random() < 0.5 else [])]
    for _ in range(chance.choice((0, 1, 1, 2, 3, 4))):
        line += [chance.choice(OPTIONS)] if chance.random() < 0.8 else []
        line += [chance.choice(VALUES)] if chance.random() < 0.8 else []
    return line if "--model" in line or command in ("models", "pull", "tokens create") else [*line, "--model", "model"]


def test_every_command_line_is_done_or_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    codes = []
    for seed in range(CASES):
        line = random_line(random.Random(seed))
        for name, content in FILES.items():
            Path(name).write_bytes(content)
        code, _, err = run(*line, stdin=b"t1\nt2\n")
        codes.append(code)
        said = f"seed {seed}: {line} gives {code} and {err[:2000]!r}"
        assert code in (0, 1, 2) and "Traceback" not in err, said
        if code == 1:
            last = err.splitlines()[-1]
            assert re.fullmatch(r"error: [^\x00-\x1f]+", last) and len(last) < 1100, said
        assert code != 2 or "Error" in err or "Usage" in err, said
    assert {0, 1, 2} == set(codes)
