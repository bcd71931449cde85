"""README's rule: 1 for an error or a value that an option does not take, 2 for a command line that cannot be read."""

from pathlib import Path

import pytest
from process import Run

WRONG_VALUES = [
    "embed a --dtype x",
    "embed a --device x",
    "embed a --pooling x",
    "embed a --layer -1",
    "embed a --layer 99",
    "embed a --truncate-dim 0",
    "embed a --max-seq-length 0",
    "embed a --max-tokens 0",
    "embed a --prompt-name x",
    "embed a --postprocess x --fit texts.txt",
    "embed --input texts.txt --output v.npy --precision x",
    "embed --input texts.txt --output v.x",
    "similarity --matrix texts.txt --output v.x",
    "duplicates texts.txt --threshold 2",
    "duplicates texts.txt --threshold nan",
    "cluster texts.txt --threshold 2",
    "cluster texts.txt --threshold nan",
    "cluster texts.txt --min-size 0",
    "cluster texts.txt --method x",
    "map texts.txt --output m.html --seed -1",
    "map texts.txt --output m.x",
    "classify train labels.csv --output c --method x",
    "classify train labels.csv --output c --method knn --k 0",
    "classify train labels.csv --output c --method centroid --folds 1",
    "classify train labels.csv --output c --method centroid --seed -1",
    "search texts.txt q -k -1",
    "search texts.txt q --mode x",
    "search texts.txt q -C -1",
    "search texts.txt q --min-score nan",
    "explain a --output e.x",
    "evaluate --data pairs.tsv --layers x",
    "evaluate --data pairs.tsv --layers 99",
    "study --data pairs.tsv --layers x",
    "study --data pairs.tsv --poolings x",
    "study --data pairs.tsv --treatments x",
    "postprocess x --fit texts.txt --output out",
    "convert --dtype x --output out",
    "export web out --dtype x",
    "tokens create texts.txt --output t --vocab 0",
    "tokens create texts.txt --output t --min-frequency 0",
    "train --data pairs.tsv --output run --loss x",
    "train --data pairs.tsv --output run --lr nan",
    "train --data pairs.tsv --output run --epochs 0",
    "pull x/y/z",
]
WRONG_SERVERS = [  # that need the extra `serve`
    "serve --token-ids x",
    "serve --log-format x",
    "serve --drain nan",
    "serve --drain-pause inf",
    "serve --queue-timeout nan",
]
UNREADABLE = [
    "x",
    "embed a --x",
    "embed",
    "embed a --input texts.txt",
    "embed a --layer x",
    "embed a --postprocess centre",
    "similarity --sentence1 a",
    "cluster texts.txt --method kmeans",
    "search texts.txt q -k x",
    "evaluate",
    "evaluate --data pairs.tsv --layers 1 --layer 1",
    "evaluate --data pairs.tsv --plot x.png",
    "study --data pairs.tsv --treatments whiten",
    "explain a --text --json",
    "export web out --port 80",
    "export web --serve --port 65536",
    "profile --texts 0",
    "serve --port -1",
    "tokens create --output t",
    "convert --output out",
    "train --data pairs.tsv",
]


@pytest.fixture
def small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    Path("pairs.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n3\te\tf\n", encoding="utf-8")
    Path("labels.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("line", WRONG_VALUES + WRONG_SERVERS)
def test_a_wrong_value_is_an_error_of_one_line(line: str, run: Run, small_files: Path):
    if line in WRONG_SERVERS:
        pytest.importorskip("uvicorn")
    before = {*small_files.iterdir()}
    code, out, err = run(*line.split())
    assert (code, out) == (1, "") and err.splitlines()[-1].startswith("error: "), err
    assert err.count("error: ") == 1 and {*small_files.iterdir()} == before


@pytest.mark.parametrize("line", UNREADABLE)
def test_a_command_line_that_cannot_be_read_is_usage(line: str, run: Run, small_files: Path):
    code, out, err = run(*line.split())
    assert (code, out) == (2, "") and "Usage: gpt2wgpu" in err and not err.startswith("error: ")


def test_kmeans_refuses_a_seed_below_zero(run: Run, small_files: Path):
    pytest.importorskip("sklearn")
    code, _, err = run("cluster", "texts.txt", "--method", "kmeans", "--clusters", 2, "--seed", -1)
    assert code == 1 and "error: seed must be a whole number from 0 to 4294967295, not -1" in err


def test_ranges_are_in_help(run: Run):
    for command, option, shown in (("serve", "--port", "[0<=x<=65535]"), ("profile", "--texts", "[x>=1]")):
        lines = run(command, "--help")[1].splitlines()
        assert any(option in line and shown in line for line in lines), lines
