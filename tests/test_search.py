"""`gpt2wgpu search`: what it finds, prints and refuses."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from pyarrow import parquet
from searching import update, write_folder

from gpt2wgpu import Encoder, semantic_search
from gpt2wgpu.search import query as querying
from gpt2wgpu.search.query import encode_question, search_index
from gpt2wgpu.vectors.top_k import top_k

NOTES = {
    "animals.md": "# Animals\n\nThe cat sleeps on the sofa all day.\n\n# Birds\n\nThe parrot speaks from its perch.\n",
    "money.txt": "Loans have become more expensive.\n\nBorrowing money costs more now.\n",
    "code/reset.py": "def reset_device(port):\n    # hold the button for ten seconds\n    raise DeviceError('E4711')\n",
    "skipped.log": "The cat sleeps here too.\n",
    ".gitignore": "*.log\n",
}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "notes", NOTES)


def test_the_best_passage_comes_first_as_file_and_line(run: Run, notes: Path):
    code, out, err = run("search", "notes", "a kitten naps on the couch", "--mode", "semantic")
    lines = out.splitlines()
    assert code == 0 and not err
    assert lines[0].startswith("notes/animals.md:1: 0.") and lines[0].endswith("# Animals The cat sleeps on the sofa all day.")
    scores = [float(line.split(": ")[1].split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True) and "skipped.log" not in out
    assert len(lines) == 4


def test_exact_words_are_found_and_no_match_is_exit_code_1(run: Run, notes: Path):
    code, out, err = run("search", "notes", "E4711", "--mode", "lexical")
    assert (code, err) == (0, "") and out.startswith("notes/code/reset.py:1: ")
    assert run("search", "notes", "E4711", "-k", "1")[1].startswith("notes/code/reset.py:1: 0.0")
    assert run("search", "notes", "E4712", "--mode", "lexical") == (1, "", "nothing found in 4 passages\n")
    code, out, _ = run("search", "notes", "cat", "--mode", "semantic", "--min-score", "0.99", "--json")
    assert (code, json.loads(out)) == (1, [])
    write_folder(notes.parent / "empty", {"x": ""})
    assert run("search", "empty", "cat") == (1, "", "nothing found in 0 passages\n")


def test_json_says_everything(run: Run, notes: Path):
    write_folder(notes, {"copy.txt": NOTES["money.txt"]})
    _, out, _ = run("search", "notes/copy.txt", "notes/money.txt", "credit is costly", "--json", "-k", "3")
    (hit,) = json.loads(out)
    assert hit["path"] == "notes/copy.txt" and hit["others"] == ["notes/money.txt"]
    assert (hit["line"], hit["last_line"], hit["text"]) == (1, 3, NOTES["money.txt"].rstrip())
    assert hit["lexical"] is None and 0 < hit["semantic"] < 1 and hit["score"] == pytest.approx(1 / 61)


def test_context_is_printed_as_grep_does(run: Run, notes: Path):
    _, out, _ = run("search", "notes", "a bird that talks", "--mode", "semantic", "-k", "1", "-C", "2")
    score = out.split(": ")[1].split()[0]
    assert out.splitlines() == [
        "notes/animals.md-3- The cat sleeps on the sofa all day.",
        "notes/animals.md-4- ",
        f"notes/animals.md:5: {score} # Birds",
        f"notes/animals.md:6: {score} ",
        f"notes/animals.md:7: {score} The parrot speaks from its perch.",
    ]


def test_context_counts_lines_as_passages_do(run: Run, notes: Path):
    """A carriage return alone ends no line, and a byte order mark is no text."""
    (notes / "bar.md").write_bytes("\ufeff# Log\n10%\r50%\r100%\n\n# Words\nzyzzyva\r\n\n# End\n".encode())
    _, out, _ = run("search", "notes/bar.md", "zyzzyva", "--mode", "lexical", "-C", "3")
    score = out.split(": ")[1].split()[0]
    assert out.splitlines() == [
        "notes/bar.md-1- # Log",
        "notes/bar.md-2- 10%\\r50%\\r100%",
        "notes/bar.md-3- ",
        f"notes/bar.md:4: {score} # Words",
        f"notes/bar.md:5: {score} zyzzyva",
        "notes/bar.md-6- ",
        "notes/bar.md-7- # End",
    ]


def test_the_current_folder_and_names_as_they_were_given(run: Run, notes: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(notes)
    assert run("search", "parrot", "--mode", "lexical")[1].startswith("animals.md:5: ")
    assert run("search", ".", "parrot", "--mode", "lexical")[1].startswith("animals.md:5: ")
    assert run("search", "../notes", "parrot", "--mode", "lexical")[1].startswith("../notes/animals.md:5: ")
    assert run("search", str(notes), "parrot", "--mode", "lexical")[1].startswith(f"{notes}/animals.md:5: ")


def test_an_index_is_kept_searched_alone_and_brought_up_to_date(run: Run, notes: Path):
    first = run("search", "--index", "notes.index", "notes", "parrot")
    assert first[0] == 0 and run("search", "--index", "notes.index", "parrot") == first
    write_folder(notes, {"new.txt": "A parrot parrot parrot."})
    assert run("search", "--index", "notes.index", "parrot") == first  # without paths: as it is
    code, out, _ = run("search", "--index", "notes.index", "notes", "parrot", "--mode", "lexical")
    assert code == 0 and out.startswith("notes/new.txt:1: ")
    assert len(run("search", "--index", "notes.index", "notes/code", "parrot")[1].splitlines()) == 1
    assert run("index", "check", "notes.index")[0::2] == (0, "")
    code, out, err = run("search", "--index", "notes.index", "notes", "x", "--layer", "1")
    assert (code, out) == (1, "") and err.count("\n") == 1 and "the index was made with layer" in err


def test_tables_need_a_column(run: Run, notes: Path):
    write_folder(notes, {"t.csv": "id,body\n1,The parrot\n2,A cat"})
    code, out, err = run("search", "notes", "parrot", "--column", "body", "--mode", "lexical", "-k", "1")
    assert (code, out.split(" ")[0], err) == (0, "notes/t.csv:2:", "")
    code, _, err = run("search", "notes", "parrot")
    assert code == 0 and err.startswith(f"not searched: {notes}/t.csv: ") and err.count("\n") == 1
    code, out, err = run("search", "notes/t.csv", "parrot")
    assert (code, out) == (1, "") and "choose one with --column NAME" in err


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["none", "cat"], 1, "none: no such file or folder"),
        (["notes", "cat", "--mode", "fuzzy"], 1, "mode must be one of hybrid, semantic, lexical, not 'fuzzy'"),
        (["notes", "cat", "-k", "0"], 1, "k must be a whole number from 1"),
        (["--index", "none.index", "cat", "-k", "0"], 1, "k must be a whole number from 1"),  # before any work
        (["notes", "cat", "--min-score", "nan"], 1, "--min-score takes a number, not nan"),
        (["--index", "notes/money.txt", "cat"], 1, "notes/money.txt: is not a folder, and an index is one"),
        (["notes", " "], 1, "the question, the last argument, is empty"),
        (["notes", "cat", "-C", "-1"], 1, "context must be a whole number from 0"),
        (["--index", "none.index", "cat"], 1, "none.index: there is no index"),
        (["--index", "notes/money.txt", "notes", "cat"], 1, "is not a folder: an index needs one of its own"),
    ],
)
def test_mistakes_are_one_line(run: Run, notes: Path, args: list[str], code: int, said: str):
    found, out, err = run("search", *args)
    assert (found, out) == (code, "") and said in " ".join(err.split())
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_names_that_are_not_utf_8_can_be_searched_mapped_and_written(run: Run, notes: Path):
    name = os.fsdecode(b"bad\xff.txt")
    write_folder(notes, {name: "Walruses swim.\n"})
    code, out, _ = run("search", "--index", "i", f"notes/{name}", "walruses", "--mode", "lexical", "--json")
    assert code == 0 and json.loads(out)[0]["path"] == f"notes/{name}"
    assert run("index", "export", "i", "a.parquet")[0] == 0
    assert run("map", "i", "-o", "b.parquet")[0] == run("map", f"notes/{name}", "-o", "c.html")[0] == 0
    for table, column in (("a.parquet", "path"), ("b.parquet", "file")):
        (path,) = parquet.read_table(table)[column].to_pylist()
        assert path.endswith(r"notes/bad\udcff.txt")


def test_terminals_are_not_driven_by_files(run: Run, notes: Path):
    write_folder(notes, {"evil.txt": "parrot \x1b[31m red\u2028"})
    for more in ([], ["-C", "0"]):
        out = run("search", "notes/evil.txt", "parrot", *more)[1]
        assert "\x1b" not in out and "\\x1b[31m red" in out


def test_an_index_larger_than_memory_gives_the_same(
    built_in: Encoder, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index = update(built_in, tmp_path / "index", notes)
    vector = encode_question(built_in, "pets")
    expected = search_index(index, "pets", vector, 3, "semantic")
    monkeypatch.setattr(querying, "available_memory", lambda: 100)
    seen = []
    monkeypatch.setattr(querying, "top_k", lambda *args, **options: seen.append(options["coarse"]) or top_k(*args, **options))
    assert search_index(index, "pets", vector, 3, "semantic") == expected
    assert seen[0] is index.coarse


def test_results_are_those_of_semantic_search_on_the_same_vectors(built_in: Encoder, notes: Path, tmp_path: Path):
    index = update(built_in, tmp_path / "index", notes)
    for query in ("pets", "what does a credit cost", "press the button"):
        vector = encode_question(built_in, query)
        hits = search_index(index, query, vector, 3, "semantic")
        (expected,) = semantic_search(vector, np.asarray(index.vectors), top_k=3)
        assert [index.text(int(e["corpus_id"])) for e in expected] == [hit.text for hit in hits]
        np.testing.assert_allclose([e["score"] for e in expected], [hit.score for hit in hits], atol=1e-6)
