"""Which files are searched, and how a file becomes passages."""

import errno
import json
import os
import subprocess
from functools import partial, partialmethod
from itertools import pairwise
from pathlib import Path

import pytest
from encoders import refusal
from searching import passages_of, tiny_encoder, update, write_folder

from gpt2wgpu import Encoder
from gpt2wgpu.search import passages
from gpt2wgpu.search.passages import Passage, TokenCounter, content_key, cut_text, file_passages
from gpt2wgpu.search.walk import describe_file, find_files


def names(folder: Path, *paths: Path) -> list[str]:
    return [str(Path(f.path).relative_to(folder)) for f in find_files([str(p) for p in paths or (folder,)])]


@pytest.fixture(scope="module")
def counter(built_in: Encoder) -> TokenCounter:
    return TokenCounter(built_in.tokenizer, built_in.max_seq_length, "")


def read(path: Path, counter: TokenCounter, column: str | None = None, *, named: bool = True) -> list[Passage]:
    file = describe_file(path, named=named)
    return [*file_passages(file, content_key(file, column), column, counter)]


TREE = {
    "a.txt": "a",
    ".hidden": "a",
    ".git/config": "a",
    ".git/info/exclude": "secret.txt\n",
    "secret.txt": "a",
    ".gitignore": "*.log\n/build/\n!kept.log\n",
    "x.log": "a",
    "kept.log": "a",
    "build/out.txt": "a",
    "deep/build/out.txt": "a",
    "deep/.gitignore": "!y.log\nnotes/*\n!notes/keep.md\n",
    "deep/x.log": "a",
    "deep/y.log": "a",
    "deep/notes/drop.md": "a",
    "deep/notes/keep.md": "a",
}


def test_files_are_those_that_git_would_take(tmp_path: Path):
    folder = write_folder(tmp_path, TREE)
    expected = ["a.txt", "deep/build/out.txt", "deep/notes/keep.md", "deep/y.log", "kept.log"]
    assert names(folder) == expected
    assert names(folder, folder / "deep") == [name for name in expected if name.startswith("deep")]  # rules of the folders around
    assert names(folder, folder / "x.log", folder / "a.txt") == ["a.txt", "x.log"]  # named ones are always taken


def test_git_agrees(tmp_path: Path):
    folder = write_folder(tmp_path, {name: text for name, text in TREE.items() if not name.startswith(".git/")})
    try:
        subprocess.run(["git", "init", "-q", str(folder)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    listed = ["git", "-C", str(folder), "ls-files", "--others", "--exclude-standard"]
    found = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    assert names(folder) == sorted(name for name in found if "/." not in f"/{name}")


def test_links_are_not_followed_and_the_index_is_left_out(tmp_path: Path):
    folder = write_folder(tmp_path / "f", {"a.txt": "a", "index/state.json": "{}"})
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "b.txt").symlink_to(folder / "a.txt")
    found = find_files([str(folder)], folder / "index")
    assert [Path(f.path).name for f in found] == ["a.txt"]
    assert refusal(lambda: find_files([str(tmp_path / "none")])) == f"{tmp_path / 'none'}: no such file or folder"


def test_paragraphs_are_joined_up_to_a_size_and_keep_their_lines(counter: TokenCounter):
    text = f"one two\n\nthree\n{'four ' * 20}\n\n\n" + "word " * 150 + "\n\nlast"
    first, second = cut_text(text, counter)
    assert first == Passage(f"one two\n\nthree\n{'four ' * 20}", 1, 4)
    assert (second.first, second.last) == (7, 9) and second.text.endswith("\n\nlast")


def test_headings_begin_passages_only_outside_of_code(counter: TokenCounter):
    text = "intro\n# One\ntext\n```\n# no heading\n```\n## Two\nmore\n"
    found = cut_text(text, counter, markdown=True)
    assert [(p.first, p.last) for p in found] == [(1, 1), (2, 6), (7, 8)]
    assert len(cut_text(text, counter)) == 1


def test_long_paragraphs_and_lines_are_cut_and_nothing_is_lost(counter: TokenCounter):
    lines = [f"line {i} " + "of some words " * 9 for i in range(40)]
    lines[20] = " ".join(f"w{i}" for i in range(2000))
    lines[30] = "x" * 5000
    found = cut_text("\n".join(lines), counter)
    assert "".join("".join(p.text for p in found).split()) == "".join("".join(lines).split())
    assert max(counter.count([p.text for p in found])) <= counter.limit
    assert all(a.last <= b.first for a, b in pairwise(found))
    assert {p.first for p in found if p.text.startswith("w")} == {21}


def test_blank_files_have_no_passages(counter: TokenCounter, tmp_path: Path):
    for text in ("", "\n\n  \n"):
        write_folder(tmp_path, {"a.txt": text})
        assert read(tmp_path / "a.txt", counter) == []


def test_rows_of_tables_have_the_lines_where_they_begin(counter: TokenCounter, tmp_path: Path):
    records = [{"id": 1, "body": "first"}, {"id": 2, "body": "second\nline"}]
    write_folder(
        tmp_path,
        {
            "a.jsonl": json.dumps(records[0]) + "\n\n" + json.dumps(records[1]),
            "a.csv": 'id,body\n1,first\n2,"second\nline"\n3,third',
            "a.tsv": "id\tbody\n1\tfirst\n2\tsecond",
        },
    )
    assert [(p.text, p.first) for p in read(tmp_path / "a.jsonl", counter, "body")] == [("first", 1), ("second\nline", 3)]
    assert [(p.text, p.first) for p in read(tmp_path / "a.csv", counter, "body")] == [
        ("first", 2),
        ("second\nline", 3),
        ("third", 5),
    ]
    assert [(p.text, p.first) for p in read(tmp_path / "a.tsv", counter, "2")] == [("body", 1), ("first", 2), ("second", 3)]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    import pyarrow as arrow

    pyarrow.write_table(arrow.table({"body": ["first", "second"], "id": [1, 2]}), tmp_path / "a.parquet")
    assert [(p.text, p.first) for p in read(tmp_path / "a.parquet", counter)] == [("first", 1), ("second", 2)]
    assert refusal(lambda: read(tmp_path / "a.csv", counter)).startswith(f"{tmp_path}/a.csv: no column 'text' or 'sentence'")


def test_what_cannot_be_searched_is_said(counter: TokenCounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(passages, "TEXT_FILE_BYTES", 1000)
    files = {"a.bin": b"\0\1", "b.txt": b"caf\xe9", "c.csv": "x,y\n1,2", "d.txt": "d" * 1001, "e.jsonl": '{"text":"\\ud800"}'}
    write_folder(tmp_path, files)
    whys = {
        "a.bin": "not text",
        "b.txt": "not UTF-8",
        "c.csv": "no column",
        "d.txt": "larger than",
        "e.jsonl": "line or row 1 holds",
    }
    for name, why in whys.items():
        with pytest.raises(passages.Skipped, match=why):
            read(tmp_path / name, counter, named=False)
        said = refusal(lambda name=name: read(tmp_path / name, counter))
        assert said.startswith(f"{tmp_path / name}: ") and why in said


def test_utf_16_is_named_and_a_path_is_said_once(counter: TokenCounter, tmp_path: Path):
    write_folder(tmp_path, {"a.txt": "trains\n".encode("utf-16"), "b.bin": bytes(range(256)), "c.csv": "x,y\n1,2"})
    why = {}
    for name in ("a.txt", "b.bin", "c.csv"):
        with pytest.raises(passages.Skipped) as skipped:
            read(tmp_path / name, counter, named=False)
        why[name] = str(skipped.value)
    assert (why["a.txt"], why["b.bin"]) == ("UTF-16; save it as UTF-8", "not text")
    assert why["c.csv"].startswith("no column 'text' or 'sentence'")


def test_what_may_not_be_looked_into_is_listed_and_the_rest_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_folder(tmp_path, {"a/x.txt": "x", "closed/y.txt": "y", "gone/z.txt": "z", "b.txt": "b"})
    errors = {str(folder / "closed"): PermissionError, str(folder / "gone"): FileNotFoundError}
    whole = os.scandir

    def scan(path: Path):
        if str(path) in errors:
            raise errors[str(path)]
        return whole(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert names(folder) == ["a/x.txt", "b.txt", "closed"]
    with pytest.raises(PermissionError):
        names(folder, folder / "closed")


@pytest.mark.parametrize("name", ["closed", ".gitignore"])
def test_a_closed_folder_and_gitignore_are_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """root may look into every folder, so the refusal is made here."""
    folder = write_folder(tmp_path / "f", {"a.txt": "t1 t2", "closed/.y.txt": "y", ".gitignore": ""})
    scandir, opened = os.scandir, Path.open

    def refuse_closed(path, *args, of, **options):
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return of(path, *args, **options)

    monkeypatch.setattr(os, "scandir", partial(refuse_closed, of=scandir))
    monkeypatch.setattr(Path, "open", partialmethod(refuse_closed, of=opened))
    found = update(tiny_encoder(tmp_path / "model"), tmp_path / "index", folder)
    assert found.catalogue.files[str(folder / name)].why == "Permission denied"
    assert [path for path, *_ in passages_of(found)] == ["a.txt"]


def test_a_model_that_reads_too_little_is_refused(tmp_path: Path):
    encoder = tiny_encoder(tmp_path / "model")
    said = refusal(lambda: TokenCounter(encoder.tokenizer, 12, "t1 " * 9))
    assert said == "the model reads 12 tokens, of which its prompt takes 9: too few are left for passages"
