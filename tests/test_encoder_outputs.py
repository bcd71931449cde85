"""What `encode` returns: vectors in other precisions and containers, token states; and options without effect."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import LONG, TEXTS, golden, refusal, tiny_gpt2

from gpt2wgpu import Encoder, quantize_embeddings
from gpt2wgpu.files import windows


def prompted(folder: Path) -> Encoder:
    return Encoder(folder, device="numpy", prompts={"query": "t1 t2 ", "document": None})


@pytest.mark.parametrize("name", ["gpt2_five_layers_bf16", "bert_tanh_bf16", "roberta"])
def test_token_embeddings_are_the_hidden_states_of_transformers(
    name: str, make: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(windows, "WINDOW", 3)
    folder = golden(name, tmp_path)
    with np.load(folder / "expected.npz") as expected:
        ends = np.cumsum(expected["lengths"])[:-1]
        sequences, states = np.split(expected["ids"], ends), np.split(expected["hidden"][-1], ends)
    texts = [" ".join(f"t{i}" for i in ids) for ids in sequences]
    model = make(folder, layer=len(expected_layers(folder)), pooling="max")
    model.encode(texts)
    before = model.engine.program.bytes
    found = model.encode(texts, output_value="token_embeddings", batch_size=2)
    assert [f.shape for f in found] == [s.shape for s in states]
    largest = max(np.abs(s).max() for s in states)
    for got, want, ids in zip(found, states, sequences, strict=True):
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= 1e-4 * largest
        np.testing.assert_allclose(got.max(0), model.encode(" ".join(f"t{i}" for i in ids)), atol=1e-5)
    if model.device != "numpy":  # the weights are not uploaded again
        assert model.engine._states_program().bytes < before
    one = model.encode(texts[1], output_value="token_embeddings")
    np.testing.assert_allclose(one, found[1], atol=1e-5)


def expected_layers(folder: Path) -> range:
    with np.load(folder / "expected.npz") as expected:
        return range(len(expected["hidden"]) - 1)


def test_all_that_is_known_of_a_text(tmp_path: Path):
    model = prompted(tiny_gpt2(tmp_path))
    one = model.encode("t3", "query", output_value=None, truncate_dim=3, normalize_embeddings=True)
    assert one["input_ids"].tolist() == [1, 2, 3] and one["attention_mask"].tolist() == [1, 1, 1]
    assert one["input_ids"].dtype == np.int64
    np.testing.assert_allclose(one["sentence_embedding"], model.encode("t3", "query", truncate_dim=3), atol=1e-6)
    states = model.encode("t3", "query", output_value="token_embeddings", truncate_dim=3, normalize_embeddings=True)
    assert states.shape == (3, 8)  # neither cut nor normalised
    np.testing.assert_array_equal(one["token_embeddings"], states)
    both = model.encode(iter(["t3", "t4 t5"]), output_value=None)
    assert [len(found["input_ids"]) for found in both] == [1, 2]
    assert model.encode([], output_value=None) == model.encode([], output_value="token_embeddings") == []
    message = refusal(lambda: model.with_layers([0, 1]).encode("t1", output_value="token_embeddings"))
    assert message == "token_embeddings are those of one layer, this Encoder has 2: make one without with_layers"


def test_token_embeddings_that_are_not_finite_name_the_text(make: Callable[..., Encoder], tmp_path: Path):
    from encoders import with_row

    model = make(tiny_gpt2(tmp_path, change={"wte.weight": with_row(7, 3e38)}), layer=1, max_tokens=4)
    assert "text 2 holds NaN or Inf" in refusal(lambda: model.encode(["t1", "t2", "t7", "t3"], output_value="token_embeddings"))
    assert len(model.encode(["t1", "t2"], output_value="token_embeddings")) == 2


def test_texts_that_are_cut_are_counted_over_all_windows(built_in: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpt2wgpu.files.windows.WINDOW", 1)
    texts = [LONG, "a", LONG, "b"]
    calls: list[Callable[[], object]] = [
        lambda: built_in.encode(texts),
        lambda: [*built_in.encode_stream(texts)],
        lambda: built_in.encode(texts, output_value="token_embeddings"),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match=r"^2 of 4 texts had more than"):
            call()


def test_texts_that_are_cut_are_counted_once(built_in: Encoder):
    for value in ("token_embeddings", None):
        with pytest.warns(UserWarning, match="^1 of 2 texts had more than") as caught:
            built_in.encode(["a " * 3000, "b"], output_value=value)
        assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary", None])
def test_precision(precision: str | None, built_in: Encoder):
    vectors = built_in.encode(TEXTS, normalize_embeddings=True)
    found = built_in.encode(TEXTS, precision=precision, normalize_embeddings=True)
    np.testing.assert_array_equal(found, quantize_embeddings(vectors, precision or "float32"))
    assert len(built_in.encode([], precision=precision)) == 0
    if precision in ("int8", "uint8"):
        assert "two vectors" in refusal(lambda: built_in.encode("one", precision=precision))
        assert "a stream knows one at a time" in refusal(lambda: built_in.encode_stream(TEXTS, precision=precision))
    else:
        np.testing.assert_array_equal([*built_in.encode_stream(TEXTS, precision=precision, normalize_embeddings=True)], found)
        assert built_in.encode(TEXTS[0], precision=precision).shape == found.shape[1:]
    assert "precision must be one of" in refusal(lambda: built_in.encode(TEXTS, precision="int4"))


def test_precision_of_token_embeddings(built_in: Encoder):
    states = built_in.encode(TEXTS, output_value="token_embeddings")
    found = built_in.encode(TEXTS, output_value="token_embeddings", precision="int8")  # ranges are those of all tokens
    np.testing.assert_array_equal(np.concatenate(found), quantize_embeddings(np.concatenate(states), "int8"))
    assert [len(f) for f in found] == [len(s) for s in states]
    assert "precision='int8' needs" in refusal(lambda: built_in.encode(TEXTS, output_value=None, precision="int8"))


def test_tensors_without_torch(built_in: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for option, asked in (("convert_to_tensor", True), ("convert_to_numpy", False)):
        for value in ("sentence_embedding", "token_embeddings"):
            message = refusal(
                lambda option=option, asked=asked, value=value: built_in.encode(TEXTS, output_value=value, **{option: asked})
            )
            assert "torch, which is not installed: pip install torch" in message
    built_in.encode(TEXTS, convert_to_tensor=False, convert_to_numpy=True)


def test_options_that_change_nothing_are_accepted(built_in: Encoder):
    expected = built_in.encode(TEXTS)
    for options in (
        {"device": "cpu"},
        {"device": "numpy"},
        {"device": "cpu:0"},
        {"chunk_size": 2},
        {"pool": None},
        {"task": "query"},
    ):
        np.testing.assert_array_equal(built_in.encode(TEXTS, **options), expected)
        built_in.encode_query(TEXTS[0], **options)
    # all of them by their places, as in sentence-transformers
    places = (None, None, 32, False, "sentence_embedding", "float32", True, False, None, True, 7, None, None)
    want = built_in.encode(TEXTS, normalize_embeddings=True, truncate_dim=7)
    for method in (built_in.encode, built_in.encode_query, built_in.encode_document):
        np.testing.assert_array_equal(method(TEXTS, *places), want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device='gpu': an Encoder stays where it was opened"),
        ({"device": ["cpu", "cpu"]}, "an Encoder stays where it was opened"),
        ({"device": "cuda:1"}, "device 'cuda:1' is a torch device"),
        ({"pool": {"processes": []}}, "pool: one Encoder uses all cores"),
        ({"processing_kwargs": {"text": {}}}, "use max_seq_length"),
        ({"output_value": "pooler"}, "output_value must be one of 'sentence_embedding', 'token_embeddings', None, not 'pooler'"),
    ],
)
def test_options_that_cannot_be_done_are_refused(options: dict[str, Any], message: str, built_in: Encoder):
    for method in (built_in.encode, built_in.encode_query, built_in.encode_document):
        assert message in refusal(lambda method=method: method(TEXTS, **options))


def test_an_unknown_option_is_a_mistake_in_the_program(built_in: Encoder):
    for call in (
        lambda: built_in.encode(TEXTS, normalise=True),
        lambda: built_in.encode_query(TEXTS, normalise=True),
        lambda: built_in.encode_stream(TEXTS, normalise=True),
        lambda: built_in.similarity_matrix(TEXTS, normalise=True),
        lambda: Encoder(device="numpy", normalise=True),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'normalise'"):
            call()


def test_a_progress_bar_where_logging_shows_details(
    built_in: Encoder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As in sentence-transformers: at INFO and DEBUG."""
    monkeypatch.setattr("gpt2wgpu.progress.EVERY", 1e-9)
    for level, shown in ((logging.WARNING, False), (logging.INFO, True), (logging.DEBUG, True), (logging.ERROR, False)):
        monkeypatch.setattr(logging.getLogger("gpt2wgpu"), "level", level)
        logging.getLogger("gpt2wgpu").manager._clear_cache()
        built_in.encode(TEXTS)
        assert bool(capfd.readouterr().err) == shown
        built_in.encode(TEXTS, show_progress_bar=False)
        assert not capfd.readouterr().err
