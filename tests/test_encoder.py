"""The Encoder's promises: shapes, order, laziness, options, refusals. (Vectors against others: test_sentence_models.py.)"""

import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import LONG, TEXTS, refusal, tiny_gpt2

from gpt2wgpu import Encoder, UserError
from gpt2wgpu.files import windows
from gpt2wgpu.graph.tensor import Array

# --- shapes and order


def test_every_kind_of_input(make: Callable[..., Encoder]):
    model = make(layer=1)
    expected = model.encode(TEXTS)
    assert expected.shape == (5, 384)
    assert expected.dtype == np.float32
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() < 1e-5
    for inputs in (
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, object),
        (t for t in TEXTS),
        iter(TEXTS),
        dict.fromkeys(TEXTS).keys(),
    ):
        np.testing.assert_array_equal(model.encode(inputs), expected)
    np.testing.assert_array_equal([*model.encode_stream(TEXTS)], expected)
    one = model.encode(TEXTS[0])
    assert one.shape == (384,)
    np.testing.assert_allclose(one, expected[0], atol=1e-6)
    np.testing.assert_array_equal(model.encode(np.str_(TEXTS[0])), one)
    np.testing.assert_array_equal(model.encode([TEXTS[0]])[0], one)


def test_no_texts(built_in: Encoder):
    for inputs in ([], (), iter([]), np.array([], str)):
        found = built_in.encode(inputs)
        assert found.shape == (0, 384)
        assert found.dtype == np.float32
    assert built_in.encode([], truncate_dim=7, normalize_embeddings=True).shape == (0, 7)
    assert list(built_in.encode_stream([])) == []


def test_order_is_kept_across_windows_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "WINDOW", 7)
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", max_tokens=16)
    rng = np.random.default_rng(0)
    texts = [" ".join(f"t{i}" for i in rng.integers(0, 16, n)) for n in rng.integers(0, 32, 100)]
    np.testing.assert_allclose(model.encode(texts), np.stack([model.encode(t) for t in texts]), atol=1e-5)
    np.testing.assert_array_equal(model.encode(iter(texts)), model.encode(texts))


def test_equal_texts_are_computed_once(make: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch):
    model, computed = make(layer=0, max_tokens=8), 0
    submit = model.engine.program.submit

    def counting(batch: dict[str, Array]) -> Callable[[], Array]:
        nonlocal computed
        computed += len(batch["spans"])
        return submit(batch)

    monkeypatch.setattr(model.engine.program, "submit", counting)
    texts = ["one cat", "two dogs", "one cat", "", "three", "two dogs", "one cat"]
    vectors = model.encode(texts)
    assert computed == 4
    np.testing.assert_allclose(vectors, np.stack([model.encode(t) for t in texts]), rtol=0, atol=1e-6)


def test_a_window_of_very_long_texts_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By characters, so that a few thousand books do not lie in memory."""
    monkeypatch.setattr(windows, "WINDOW_CHARACTERS", 100)
    read = iter(["t1 " * 20] * 10)
    assert len(windows.take_window(read)) == 2
    assert len(windows.take_window(iter(["x" * 1000]))) == 1
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    assert len(np.unique(model.encode(["t1 " * 20] * 10), axis=0)) == 1


def test_an_input_that_is_shorter_or_longer_than_it_says(built_in: Encoder):
    """Rows that were never computed are not returned."""

    class Wrong(list):
        def __len__(self) -> int:
            return 3

    for texts, found in ((Wrong(["a", "b"]), 2), (Wrong(["a", "b", "c", "d"]), 4)):
        assert f"the inputs gave {found} texts, but their length is 3" in refusal(lambda texts=texts: built_in.encode(texts))


# --- streaming


def counted(texts: list[str]) -> tuple[Iterator[str], list[int]]:
    read = [0]

    def numbered() -> Iterator[str]:
        for text in texts:
            read[0] += 1
            yield text

    return numbered(), read


def test_a_stream_reads_a_bounded_number_of_texts_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "WINDOW", 10)
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    texts, read = counted(["t1 t2"] * 100)
    rows = model.encode_stream(texts)
    assert read == [0]
    for i in range(100):
        next(rows)
        assert i < read[0] <= i + 30
    assert next(rows, None) is None
    assert read == [100]


def test_an_endless_stream_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "WINDOW", 256)
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")

    def endless() -> Iterator[str]:
        while True:
            yield "t1 t2 t3"

    rows = model.encode_stream(endless())
    peaks = []
    tracemalloc.start()
    for texts in (1024, 9 * 1024, 1024):
        tracemalloc.reset_peak()
        for _ in range(texts):
            next(rows)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    rows.close()
    assert peaks[2] < peaks[0] + 600_000  # the smallest array takes 112 bytes: ten thousand that stay would be over a million


def test_an_abandoned_stream_leaves_no_thread(built_in: Encoder):
    def tokenizing() -> int:
        return sum("tokenize_window" in t.name for t in threading.enumerate())

    rows = built_in.encode_stream(TEXTS * 2000)
    next(rows)
    assert tokenizing() > 0
    rows.close()
    deadline = time.monotonic() + 20
    while tokenizing() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not tokenizing()
    built_in.encode_stream(TEXTS)  # never started


def test_an_encoder_may_be_used_while_its_stream_is_read(make: Callable[..., Encoder]):
    model = make(layer=1)
    expected = model.encode(TEXTS)
    for i, row in enumerate(model.encode_stream(TEXTS * 2)):
        np.testing.assert_array_equal(row, expected[i % 5])
        np.testing.assert_allclose(model.encode(TEXTS[i % 5]), row, atol=1e-6)


def test_an_iterator_may_use_the_encoder(make: Callable[..., Encoder]):
    model = make(layer=1)
    texts = (str(int(model.encode(t)[0] > 0)) for t in TEXTS)
    assert model.encode(texts).shape == (5, 384)


def test_an_iterator_that_fails_fails_the_call(built_in: Encoder):
    def failing() -> Iterator[str]:
        yield "a"
        raise OSError("the disk is gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        built_in.encode(failing())
    assert threading.active_count() <= before


def test_wrong_arguments_are_refused_before_anything_is_read(built_in: Encoder):
    texts, read = counted(TEXTS)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"truncate_dim": 0}, "truncate_dim must be a whole number from 1 to 16777216, not 0"),
        ({"truncate_dim": 2.5}, "truncate_dim"),
        ({"prompt_name": "query"}, "prompt_name 'query' is not among the model's prompts (none); give its text as prompt="),
        ({"prompt": 5}, "prompt"),
    ]
    for options, message in wrong:
        for method in (built_in.encode, built_in.encode_stream):
            assert message in refusal(lambda method=method, options=options: method(texts, **options))
    assert refusal(lambda: built_in.encode_stream("one text")) == "encode_stream takes several texts, not one: give a list"
    assert read == [0]


# --- options


def test_vectors_are_cut_first_and_normalised_then(make: Callable[..., Encoder]):
    model = make(layer=1)
    whole = model.encode(TEXTS)
    cut = model.encode(TEXTS, truncate_dim=10)
    np.testing.assert_array_equal(cut, whole[:, :10])
    unit = model.encode(TEXTS, truncate_dim=10, normalize_embeddings=True)
    np.testing.assert_allclose(unit, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)
    assert model.encode("a", truncate_dim=np.int64(3)).shape == (3,)


def test_truncate_dim_of_the_encoder(tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    model = Encoder(folder, device="numpy", truncate_dim=3)
    assert (model.dimensions, model.width) == (3, 8)
    assert model.encode("t1").shape == (3,)
    assert model.encode([]).shape == (0, 3)
    assert model.encode("t1", truncate_dim=5).shape == (5,)
    assert model.encode("t1", truncate_dim=9).shape == (8,)  # as in sentence-transformers
    for wrong in (0, -1, 1.5, "3", True):
        assert "truncate_dim" in refusal(lambda wrong=wrong: Encoder(folder, device="numpy", truncate_dim=wrong))
        with pytest.raises(UserError, match="truncate_dim must be a whole number"):
            model.truncate_dim = wrong
    assert model.dimensions == 3
    model.truncate_dim = 1000
    assert (model.dimensions, model.encode("t1").shape) == (8, (8,))
    model.truncate_dim = None
    assert model.dimensions == 8


def test_prompts(tmp_path: Path):
    prompts = {"query": "t1 t2 ", "passage": "t3 ", "empty": ""}
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", prompts=prompts, default_prompt_name="query")

    def plain(text: str) -> Array:
        return model.encode(text, prompt="")

    assert not np.allclose(plain("t5"), plain("t1 t2 t5"))
    np.testing.assert_array_equal(model.encode("t5"), plain("t1 t2 t5"))
    np.testing.assert_array_equal(model.encode("t5", prompt_name="passage"), plain("t3 t5"))
    np.testing.assert_array_equal(model.encode("t5", prompt_name="empty"), plain("t5"))
    np.testing.assert_array_equal(model.encode("t5", "passage", "t4 "), plain("t4 t5"))
    np.testing.assert_array_equal(model.encode("t5", "unknown", "t4 "), plain("t4 t5"))
    np.testing.assert_array_equal(model.encode(["t5", ""]), np.stack([plain("t1 t2 t5"), plain("t1 t2")]))
    assert "'nope' is not among the model's prompts (query, passage, empty)" in refusal(lambda: model.encode([], "nope"))
    assert "'nope'" in refusal(lambda: Encoder(tmp_path, device="numpy", prompts=prompts, default_prompt_name="nope"))


def test_texts_over_the_limit_are_cut_with_one_warning(built_in: Encoder):
    with pytest.warns(
        UserWarning,
        match=rf"^2 of 3 texts had more than {built_in.max_seq_length} tokens and were cut there \(max_seq_length\)$",
    ) as caught:
        vectors = built_in.encode([LONG, "a", LONG + "x"])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(vectors[0], vectors[2])
    with pytest.warns(UserWarning, match="^1 of 1 texts"):
        np.testing.assert_allclose(built_in.encode(iter([LONG])), vectors[:1], atol=1e-6)
    with pytest.warns(UserWarning, match="^1 of 2 texts"):
        list(built_in.encode_stream([LONG, "a"]))


def test_a_lone_text_that_is_cut_is_reported_too(built_in: Encoder):
    with pytest.warns(UserWarning, match=f"^1 of 1 texts had more than {built_in.max_seq_length} tokens") as caught:
        built_in.encode(LONG)
    assert caught[0].filename == __file__


def test_texts_over_the_limit_may_be_refused(built_in: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(windows, "WINDOW", 2)
    message = refusal(lambda: built_in.encode(["a", "b", "c", LONG, LONG], truncate=False))
    assert re.search(rf"text 3 has at least 100[012] tokens, the model reads {built_in.max_seq_length}: shorten it", message)
    assert built_in.encode(["a", "b"], truncate=False).shape == (2, 384)


def test_max_seq_length(tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", max_seq_length=3)
    assert (model.max_seq_length, model.context) == (3, 32)
    with pytest.warns(UserWarning, match="1 of 2 texts had more than 3 tokens"):
        three, two = model.encode(["t1 t2 t3 t4", "t1 t2"])
    np.testing.assert_allclose(model.encode("t1 t2 t3"), three, atol=1e-6)
    model.max_seq_length = 32
    assert not np.allclose(model.encode("t1 t2 t3 t4"), three)
    np.testing.assert_allclose(model.encode("t1 t2"), two, atol=1e-6)
    assert model.encode("t1 " * 32, truncate=False).shape == (8,)
    for wrong in (0, 33, -1, 2.5, "8", None, True):
        with pytest.raises(UserError, match="max_seq_length must be a whole number from 1 to 32"):
            model.max_seq_length = wrong
        if wrong is not None:
            assert "max_seq_length" in refusal(lambda wrong=wrong: Encoder(tmp_path, device="numpy", max_seq_length=wrong))
    assert model.max_seq_length == 32


def test_a_text_longer_than_the_token_budget(make: Callable[..., Encoder], tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    texts = ["t1 " * 32, "t2", "t3 t4 " * 10]
    expected = make(folder).encode(texts)
    model = make(folder, max_tokens=1)
    assert model.engine.max_tokens == 1
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-5)


def test_a_progress_bar_goes_to_stderr(built_in: Encoder, capfd: pytest.CaptureFixture[str]):
    vectors = built_in.encode(TEXTS, show_progress_bar=True)
    np.testing.assert_array_equal(np.stack([*built_in.encode_stream(iter(TEXTS), show_progress_bar=True)]), vectors)
    assert capfd.readouterr().out == ""
    np.testing.assert_array_equal(built_in.encode(TEXTS), vectors)
    assert capfd.readouterr().err == ""


def test_progress_without_a_terminal(built_in: Encoder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    built_in.encode(TEXTS, show_progress_bar=True)
    assert capfd.readouterr() == ("", "")  # in less than half a minute
    monkeypatch.setattr("gpt2wgpu.progress.EVERY", 1e-9)
    for texts, of in ((TEXTS, " of 5"), (iter(TEXTS), "")):
        built_in.encode(texts, batch_size=2, show_progress_bar=True)
        out, err = capfd.readouterr()
        assert out == "" and re.search(rf"^encoded 4{of} texts, [\d,]+ texts/s{', 0:00 left' if of else ''}$", err, re.M), err
