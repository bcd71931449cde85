"""Pairs of sentences from files, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import one_line

from gpt2wgpu.errors import UserError
from gpt2wgpu.files.pairs import read_pairs, read_sentences

PAIRS = Path(__file__).parent.parent / "data_sets"


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.tsv", "id\tsentence1\tsentence2\tlabel\n1\tone \tt\"wo\t1\n2\tthree\tfour, five\t0\n"),
        ("a.tsv", "\ufefflabel\tsentence2\tsentence1\r\n1\tt\"wo\tone \r\n0.0\tfour, five\tthree"),
        ("a.tsv", "1\tone \tt\"wo\n0\tthree\tfour, five\n"),
        ("a.csv", 'sentence1,sentence2,score\none ,"t""wo",1\nthree,"four, five",0\n'),
        ("a.jsonl", '{"sentence1": "one ", "sentence2": "t\\"wo", "label": 1}\n'
                    '\n{"sentence2": "four, five", "score2": 3, "sentence1": "three", "label": 0}\n'),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, text: str):
    path = write(tmp_path, name, text)
    pairs = read_pairs(path)
    assert pairs.sentences1 == ["one ", "three"] and pairs.sentences2 == ['t"wo', "four, five"]
    assert pairs.targets is not None and pairs.targets.tolist() == [1, 0] and pairs.labelled and len(pairs) == 2
    assert list(read_sentences(path)) == ["one ", 't"wo', "three", "four, five"]


def test_scores_are_told_from_labels_by_their_values(tmp_path: Path):
    pairs = read_pairs(write(tmp_path, "a.tsv", "5\ta\tb\n-1.5e-1\tc\td\n.5\te\tf\n"))
    assert pairs.targets is not None and pairs.targets.tolist() == [5, -0.15, 0.5] and not pairs.labelled
    assert not read_pairs(write(tmp_path, "b.tsv", "sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t2\n")).labelled
    assert read_pairs(write(tmp_path, "c.tsv", "sentence1\tsentence2\tscore\na\tb\t0\nc\td\t1\n")).labelled


def test_pairs_without_a_target(tmp_path: Path):
    for name, text in {"a.tsv": "a\tb\nc\td\n", "b.csv": "sentence1,sentence2\na,b\nc,d\n"}.items():
        path = write(tmp_path, name, text)
        pairs = read_pairs(path, target=False)
        assert (pairs.sentences1, pairs.sentences2, pairs.targets) == (["a", "c"], ["b", "d"], None)
        assert not pairs.labelled
        with pytest.raises(UserError, match="neither a label nor a score"):
            read_pairs(path)
    path = write(tmp_path, "b.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 1}\n{"sentence1": "c", "sentence2": "d"}\n')
    with pytest.raises(UserError, match="line 2 has no target, the first has label"):
        read_pairs(path, target=False)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.txt", "5\ta\tb\n", [".tsv, .csv and .jsonl"]),
        ("a.tsv", "", ["no pairs"]),
        ("a.tsv", "sentence1\tsentence2\tlabel\n", ["no pairs"]),
        ("a.tsv", "question1\tquestion2\tsame\na\tb\t1\n", ["row 1", "'question1'", "sentence1"]),
        ("a.tsv", "sentence1\tsentence2\tsentence2\tlabel\na\tb\tc\t1\n", ["row 1"]),
        ("a.tsv", "sentence1\tsentence2\tlabel\tscore\na\tb\t1\t1\n", ["row 2", "both"]),
        ("a.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\nc\td\tyes\n", ["row 3", "label is 'yes'", "number"]),
        ("a.tsv", "5\ta\tb\nnan\tc\td\n", ["row 2", "score is 'nan'"]),
        ("a.tsv", "5\ta\tb\n1_0\tc\td\n", ["row 2", "score is '1_0'"]),
        ("a.tsv", "5\ta\tb\n4\tc\t \n", ["row 2", "sentence2 is ' '"]),
        ("a.tsv", "5\ta\tb\n4\t\td\n", ["row 2", "sentence1 is empty"]),
        ("a.tsv", "5\ta\tb\n4\tc\td\te\n", ["row 2 has 4 columns, the first has 3"]),
        ("a.csv", 'sentence1,sentence2,label\na,"b,1\n', ["line 2"]),
        ("a.tsv", "".join(f"{i}\ta\tb\n" for i in range(1, 8)), ["counts the rows", "header"]),
        ("a.tsv", "".join(f"{i}\ta\tb\n" for i in range(7)), ["counts the rows", "header"]),
        ("a.tsv", "id\ttitle\nx1\ta\n", ["row 1", "'id', 'title'", "expected a header"]),
        ("a.jsonl", '{"sentence1": "a", "sentence2": null, "label": 1}\n', ["line 1", "sentence2 is null"]),
        ("a.jsonl", '{"sentence1": "a", "label": 1}\n', ["line 1 has no sentence2"]),
        ("a.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 1%s}\n' % ("0" * 400), ["line 1", "label is 1000", "number"]),
        ("a.jsonl", '["a", "b"]\n', ["line 1", "expected an object"]),
        ("a.jsonl", '{"sentence1": "a", "sentence2": 3, "label": 1}\n', ["line 1", "sentence2 is 3"]),
        ("a.jsonl", '{"sentence1": "a", "sentence2": "b", "label": true}\n', ["line 1", "label is True"]),
        ("a.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 1}\n{"sentence1": "a", "sentence2": "b", "score": 1}\n',
         ["line 2 has score, the first has label"]),
    ],
)  # fmt: skip
def test_what_is_unclear_is_refused(tmp_path: Path, name: str, text: str, words: list[str]):
    path = write(tmp_path, name, text)
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    one_line(caught.value, path, *words)


def test_sentences_of_other_files(tmp_path: Path):
    assert list(read_sentences(write(tmp_path, "a.txt", "5\ta\tb\n\nc"))) == ["5\ta\tb", "", "c"]
    table = write(tmp_path, "a.tsv", "id\ttext\n1\ta\n2\tb\n")
    assert list(read_sentences(table)) == ["a", "b"] and list(read_sentences(table, "id")) == ["1", "2"]
    assert list(read_sentences(write(tmp_path, "a.jsonl", '{"text": "a"}\n"b"\n'[:14]))) == ["a"]
    pairs = write(tmp_path, "pairs.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\n")
    assert list(read_sentences(pairs)) == ["a", "b"] and list(read_sentences(pairs, "sentence2")) == ["b"]
    with pytest.raises(UserError, match="there are no texts"):
        read_sentences(write(tmp_path, "b.tsv", ""))


def test_scores_that_count_are_scores_under_their_name(tmp_path: Path):
    rows = "".join(f"{i}\ta\tb\n" for i in range(8))
    assert len(read_pairs(write(tmp_path, "a.tsv", f"score\tsentence1\tsentence2\n{rows}"))) == 8
    assert len(read_pairs(write(tmp_path, "b.tsv", rows[: 6 * 6]))) == 6  # one of each step from 0 to 5


def test_two_columns_are_pairs_only_where_pairs_are_wanted(tmp_path: Path):
    """They may be identifiers and texts: as texts they need a name."""
    path = write(tmp_path, "a.tsv", "x1\tone\nx2\ttwo\n")
    assert read_pairs(path, target=False).sentences1 == ["x1", "x2"]
    with pytest.raises(UserError, match="no column 'text' or 'sentence', the columns are 'x1', 'one'"):
        read_sentences(path)
    assert list(read_sentences(path, "2")) == ["one", "two"]
    for first in ("id\ttitle", "1\tone", "docId\tbody", "uuid\tbody", "title\ttext", "sentence1\tlabel"):
        with pytest.raises(UserError, match="row 1 holds"):
            read_pairs(write(tmp_path, "b.tsv", f"{first}\n2\ttwo\n"), target=False)


def test_a_missing_sentence_is_an_error_for_texts_too(tmp_path: Path):
    path = write(tmp_path, "a.jsonl", '{"sentence1": "a", "sentence2": "b"}\n{"sentence1": "c", "sentence2": null}\n')
    with pytest.raises(UserError, match="line 2: sentence2 is null, expected a sentence"):
        list(read_sentences(path))


def test_our_own_data_sets():
    sentences = []
    for name, count in {"train": 2160, "dev": 360, "test": 360}.items():
        pairs = read_pairs(str(PAIRS / f"{name}.tsv"))
        assert len(pairs) == count and pairs.labelled and pairs.targets is not None and pairs.targets.sum() == count / 2
        sentences += [*pairs.sentences1, *pairs.sentences2]
    assert len(set(sentences)) == len(sentences)


def test_our_simple_pairs_are_those_that_their_script_makes(tmp_path: Path):
    shutil.copytree(PAIRS, tmp_path / "a")
    subprocess.run([sys.executable, tmp_path / "a" / "simple.py"], check=True)
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        assert (tmp_path / "a" / name).read_bytes() == (PAIRS / name).read_bytes()
