"""What callers pass instead of a list of texts: read as they mean it, or refused in one line, never mistaken."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
from encoders import TEXTS, refusal, tiny_gpt2

from gpt2wgpu import Encoder
from gpt2wgpu.inputs import list_texts


class Column:
    """As pandas' Series: sized, iterable, with a shape, and labels that are not positions."""

    def __init__(self, values: list[Any]) -> None:
        self.values, self.shape, self.ndim = values, (len(values),), 1

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return iter(self.values)


class Table(Column):
    """As pandas' DataFrame, which iterates the names of its columns."""

    columns = ("id", "text")


ONE = Encoder.encode, Encoder.encode_query, Encoder.encode_document
SEVERAL = Encoder.encode_stream, Encoder.similarity_matrix, Encoder.tokenize


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_gpt2(tmp_path_factory.mktemp("model")), device="numpy")


@pytest.mark.parametrize("method", [*ONE, *SEVERAL], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            {"query": "t1", "document": "t2"},
            "encode takes a text or a list of texts, got dict with the keys ['query', 'document']: give a list of its texts",
        ),
        ({}, "got dict with the keys []"),
        ({"text": "t1", "title": "t2"}, "got dict with the keys ['text', 'title']"),
        ([{"query": "t1"}, {"query": "t2"}], "text 0 is a dict with the keys ['query']: give strings, or {'text': string}"),
        (["t1", {"role": "user", "content": "t2"}], "text 1 is a dict with the keys ['role', 'content']"),
        ([{"text": "t1", "title": "t2"}], "text 0 is a dict with the keys ['text', 'title']"),
        ({"t1"}, "got set, which has no order: give a list"),
        (frozenset(["t1"]), "got frozenset, which has no order"),
        (b"t1", "bytes: decode it"),
        (bytearray(b"t1"), "bytearray: decode it"),
        (memoryview(b"t1"), "memoryview: decode it, as in str(given, 'utf-8')"),
        ([b"t1"], "text 0 is b't1'"),
        (Table([]), "got Table: choose one of its columns, ['id', 'text']"),
        (SimpleNamespace(column_names=["a"], __iter__=None), "got SimpleNamespace: choose one of its columns, ['a']"),
        (np.array([["t1", "t2"], ["t3", "t4"]]), "ndarray of shape (2, 2)"),
        (np.array("t1"), "ndarray of shape ()"),
        (np.array([1.5, 2.5]), "text 0 is "),
        ([["t1", "t2"], ["t3", "t4"]], "text 0 is ['t1', 't2']"),
        ([("t1", "t2")], "text 0 is ('t1', 't2')"),
        ([None], "text 0 is None"),
        (["t1", float("nan")], "text 1 is nan"),
        ([{"text": 5}], "text 0 is 5"),
        (None, "None"),
        (5, "got 5 (type int)"),
        (Path("t1"), "Path"),
        (object, "<class 'object'>"),
        (str, "<class 'str'>"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_holds_no_texts_is_refused(method: Callable[..., Any], given: Any, found: str, tiny: Encoder):
    name = "encode" if method in ONE else method.__name__
    assert found.replace("encode takes", f"{name} takes") in refusal(lambda: list(method(tiny, given)))


@pytest.mark.parametrize("method", SEVERAL, ids=lambda m: m.__name__)
@pytest.mark.parametrize("given", ["t1 t2", {"text": "t1"}, np.str_("t1")])
def test_one_text_is_not_a_list_of_letters(method: Callable[..., Any], given: Any, tiny: Encoder):
    assert refusal(lambda: method(tiny, given)) == f"{method.__name__} takes several texts, not one: give a list"


@pytest.mark.parametrize("method", ONE, ids=lambda m: m.__name__)
def test_a_text_in_a_record(method: Callable[..., Any], tiny: Encoder):
    """As in sentence-transformers 6.2."""
    np.testing.assert_array_equal(method(tiny, {"text": "t1 t2"}), method(tiny, "t1 t2"))
    np.testing.assert_array_equal(method(tiny, [{"text": "t1"}, "t2"]), method(tiny, ["t1", "t2"]))


def test_columns_and_what_is_ordered(built_in: Encoder):
    expected = built_in.encode(TEXTS)
    for given in (Column(TEXTS), tuple(TEXTS), dict.fromkeys(TEXTS).keys(), map(str, TEXTS), np.array(TEXTS, object)):
        np.testing.assert_array_equal(built_in.encode(given), expected)
    np.testing.assert_array_equal(built_in.encode(sentences=TEXTS), expected)  # the old name
    arrow = pyarrow.chunked_array([TEXTS[:2], TEXTS[2:]])
    np.testing.assert_array_equal(built_in.encode(arrow), expected)
    assert "text 1 is None" in refusal(lambda: built_in.encode(pyarrow.array(["a", None])))
    assert "choose one of its columns, ['a']" in refusal(lambda: built_in.encode(pyarrow.table({"a": TEXTS})))
    assert list_texts(Column(["a", {"text": "b"}]), "embed") == ["a", "b"]
    assert built_in.encode(Column([])).shape == (0, 384)


# --- texts that cannot be encoded


@pytest.mark.parametrize(("bad", "found"), [(5, "type int"), (None, "type NoneType"), (b"a", "type bytes"), (["a"], "type list")])
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_what_is_no_string_is_named(bad: Any, found: str, prompt: str | None, built_in: Encoder):
    message = refusal(lambda: built_in.encode(["a", "b", bad, "c"], prompt=prompt))
    assert message.startswith("text 2 is ")
    assert found in message


def test_half_a_surrogate_pair_is_named(built_in: Encoder):
    message = refusal(lambda: built_in.encode(["a", "b\udc00c"]))
    assert message.startswith("text 1 holds half a surrogate pair (U+DC00, character 1)")
    message.encode()
    assert "text 0" in refusal(lambda: built_in.encode("\ud800"))


@pytest.mark.parametrize("bad", [None, "\ud800"])
def test_a_bad_text_past_the_first_window_is_named_by_its_place(bad: Any, tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    texts = ["t1"] * 6000
    texts[5000] = bad
    for inputs in (texts, iter(texts)):
        assert refusal(lambda inputs=inputs: model.encode(inputs)).startswith("text 5000 ")
    rows = model.encode_stream(texts)
    for _ in range(4096):
        next(rows)
    assert refusal(lambda: next(rows)).startswith("text 5000 ")


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ufeff", "\n", " ", "\u200d", "e\u0301", "🧑‍🚀" * 20, "\U0010ffff"])
def test_odd_but_valid_texts(text: str, built_in: Encoder):
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        found = built_in.encode([text, "a"])
    assert np.isfinite(found).all()


def test_an_empty_text_is_its_special_tokens(built_in: Encoder, tmp_path: Path):
    """Those that every text has, or where there are none, the end of text."""
    assert len(built_in.encode("", output_value="token_embeddings")) == 2
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    np.testing.assert_array_equal(model.encode(["", " "]), np.stack([model.encode("t0")] * 2))
