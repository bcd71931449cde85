"""The Encoder's promises: shapes, order, options, laziness, refusals. (Vectors against others: test_sentence_models.py.)"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpt2wgpu import Encoder, UserError, backend, checkpoint
from gpt2wgpu import encoder as encoder_module
from gpt2wgpu.gpu import Device, choose
from gpt2wgpu.gpu import device as device_module
from gpt2wgpu.ops import Array
from gpt2wgpu.sentence import default_layer

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ["The cat is sleeping.", "a", "Über den Wolken: 12 °C, 東京, 🙂", "", "A feline is resting on the warm windowsill."]
LONG = "word " * 100


@pytest.fixture(scope="session")
def built_in() -> Encoder:
    return Encoder(device="numpy")


@pytest.fixture
def use_gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders made from here on compute on the tests' device."""
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, "the device of the tests"))


@pytest.fixture(params=["numpy", "gpu"])
def make(request: pytest.FixtureRequest) -> Callable[..., Encoder]:
    if request.param == "gpu":
        request.getfixturevalue("use_gpu")
    return lambda *args, **options: Encoder(*args, device=request.param, **options)


def add_tokenizer(folder: Path, vocab: int) -> Path:
    """ "t5" is token 5; t0 stands for empty text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "t0"}', encoding="utf-8")
    return folder


def golden(name: str, folder: Path) -> Path:
    """A golden model with a tokenizer, in `folder`."""
    shutil.copytree(GOLDEN / "models" / name, folder / name)
    config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    return add_tokenizer(folder / name, config["vocab_size"])


def tiny_gpt2(folder: Path, *, layers: int = 1, change: dict[str, Any] | None = None, **config: Any) -> Path:
    """A random GPT-2 of width 8 with 16 tokens and 32 positions. `change`: f(weights) for some of its tensors."""
    C, rng = 8, np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (16, C), "wpe.weight": (32, C)}
    for i in range(layers):
        shapes |= {f"h.{i}.{n}": (C,) for n in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")}
        for name, k, n in (("attn.c_attn", C, 3 * C), ("attn.c_proj", C, C), ("mlp.c_fc", C, 4 * C), ("mlp.c_proj", 4 * C, C)):
            shapes |= {f"h.{i}.{name}.weight": (k, n), f"h.{i}.{name}.bias": (n,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    weights = {name: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3) for name, shape in shapes.items()}
    for name, f in (change or {}).items():
        weights[name] = np.ascontiguousarray(f(weights[name]), np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    settings = {"model_type": "gpt2", "n_layer": layers, "n_head": 2, "n_embd": C, "n_positions": 32, "vocab_size": 16, **config}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return add_tokenizer(folder, 16)


def with_row(row: int, value: float) -> Callable[[Array], Array]:
    """The weights with one row filled with a value."""

    def change(weights: Array) -> Array:
        weights[row] = value
        return weights

    return change


def refusal(call: Callable[[], object]) -> str:
    """The one line of the UserError that a call raises."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- shapes and order


def test_every_kind_of_input(make: Callable[..., Encoder]):
    model = make(layer=1)
    expected = model.encode(TEXTS)
    assert expected.shape == (5, 256)
    assert expected.dtype == np.float32
    assert np.abs(np.linalg.norm(expected, axis=1) - 1).max() < 1e-5
    for inputs in (tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), (t for t in TEXTS), iter(TEXTS), dict.fromkeys(TEXTS)):
        np.testing.assert_array_equal(model.encode(inputs), expected)
    np.testing.assert_array_equal([*model.encode_stream(TEXTS)], expected)
    one = model.encode(TEXTS[0])
    assert one.shape == (256,)
    np.testing.assert_allclose(one, expected[0], atol=1e-6)
    np.testing.assert_array_equal(model.encode(np.str_(TEXTS[0])), one)
    np.testing.assert_array_equal(model.encode([TEXTS[0]])[0], one)


def test_no_texts(built_in: Encoder):
    for inputs in ([], (), iter([]), np.array([], str)):
        found = built_in.encode(inputs)
        assert found.shape == (0, 256)
        assert found.dtype == np.float32
    assert built_in.encode([], truncate_dim=7, normalize_embeddings=True).shape == (0, 7)
    assert list(built_in.encode_stream([])) == []


def test_order_is_kept_across_windows_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoder_module, "WINDOW", 7)
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", max_tokens=16)
    rng = np.random.default_rng(0)
    texts = [" ".join(f"t{i}" for i in rng.integers(0, 16, n)) for n in rng.integers(0, 32, 100)]
    np.testing.assert_allclose(model.encode(texts), np.stack([model.encode(t) for t in texts]), atol=1e-5)
    np.testing.assert_array_equal(model.encode(iter(texts)), model.encode(texts))


def test_a_window_of_very_long_texts_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By characters, so that a few thousand books do not lie in memory."""
    monkeypatch.setattr(encoder_module, "WINDOW_CHARACTERS", 100)
    read = iter(["t1 " * 20] * 10)
    assert len(encoder_module.take_window(read)) == 2
    assert len(encoder_module.take_window(iter(["x" * 1000]))) == 1
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    assert len(np.unique(model.encode(["t1 " * 20] * 10), axis=0)) == 1


def test_an_input_that_is_shorter_or_longer_than_it_says(built_in: Encoder):
    """Rows that were never computed are not returned."""

    class Wrong(list):
        def __len__(self) -> int:
            return 3

    for texts in (Wrong(["a", "b"]), Wrong(["a", "b", "c", "d"])):
        with pytest.raises((ValueError, IndexError)):
            built_in.encode(texts)


# --- streaming


def counted(texts: list[str]) -> tuple[Iterator[str], list[int]]:
    read = [0]

    def numbered() -> Iterator[str]:
        for text in texts:
            read[0] += 1
            yield text

    return numbered(), read


def test_a_stream_reads_a_bounded_number_of_texts_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoder_module, "WINDOW", 10)
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
    monkeypatch.setattr(encoder_module, "WINDOW", 256)
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
        return sum("tokenizer" in t.name for t in threading.enumerate())

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
    assert model.encode(texts).shape == (5, 256)


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
        ({"truncate_dim": 0}, "truncate_dim must be a whole number from 1 to 256, not 0"),
        ({"truncate_dim": 257}, "truncate_dim"),
        ({"prompt_name": "query"}, "prompt_name 'query' is not among the model's prompts (none); give its text as prompt="),
        ({"prompt": 5}, "prompt"),
    ]
    for options, message in wrong:
        for method in (built_in.encode, built_in.encode_stream):
            assert message in refusal(lambda method=method, options=options: method(texts, **options))
    assert "encode(text)" in refusal(lambda: built_in.encode_stream("one text"))
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
    for wrong in (0, 9, -1, 1.5):
        assert "truncate_dim" in refusal(lambda wrong=wrong: Encoder(folder, device="numpy", truncate_dim=wrong))


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
        UserWarning, match=r"^2 of 3 texts had more than 64 tokens and were cut there \(max_seq_length\)$"
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
    with pytest.warns(UserWarning, match="^1 of 1 texts had more than 64 tokens") as caught:
        built_in.encode(LONG)
    assert caught[0].filename == __file__


def test_texts_over_the_limit_may_be_refused(built_in: Encoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoder_module, "WINDOW", 2)
    message = refusal(lambda: built_in.encode(["a", "b", "c", LONG, LONG], truncate=False))
    assert "text 3 has 101 tokens, the model reads 64: shorten it" in message or "text 3 has 100 tokens" in message
    assert built_in.encode(["a", "b"], truncate=False).shape == (2, 256)


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
    assert model.max_tokens == 1
    np.testing.assert_allclose(model.encode(texts), expected, atol=1e-5)


def test_a_progress_bar_goes_to_stderr(built_in: Encoder, capfd: pytest.CaptureFixture[str]):
    vectors = built_in.encode(TEXTS, show_progress_bar=True)
    np.testing.assert_array_equal(np.stack([*built_in.encode_stream(iter(TEXTS), show_progress_bar=True)]), vectors)
    assert capfd.readouterr().out == ""
    np.testing.assert_array_equal(built_in.encode(TEXTS), vectors)
    assert capfd.readouterr().err == ""


# --- texts that cannot be encoded


@pytest.mark.parametrize(("bad", "found"), [(5, "a int"), (None, "a NoneType"), (b"bytes", "a bytes"), (["a"], "a list")])
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


def test_an_empty_text_is_its_end_of_text_token(built_in: Encoder, tmp_path: Path):
    np.testing.assert_allclose(built_in.encode(""), built_in.encode("<|endoftext|>"), atol=1e-6)
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    np.testing.assert_array_equal(model.encode(["", " "]), np.stack([model.encode("t0")] * 2))


# --- vectors that are not finite


@pytest.mark.parametrize("pooling", [None, "max", "last"])
def test_an_overflow_names_the_text(
    pooling: str | None, make: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without warnings beside it (warnings are errors here)."""
    monkeypatch.setattr(encoder_module, "WINDOW", 4)
    folder = tiny_gpt2(tmp_path, layers=2, change={"wte.weight": with_row(7, 3e38)})
    with np.errstate(all="warn"):
        model = make(folder, pooling=pooling, max_tokens=8, layer=2)
        assert np.isfinite(model.encode(["t1 t2", "t3"] * 5)).all()
        message = refusal(lambda: model.encode(["t1 t2", "t3", "t4", "t5 t6", "t1", "t2 t7", "t3"]))
        assert message.startswith("the vector of text 5 holds NaN or Inf")
        assert "float32" in message
        assert np.isfinite(model.encode(["t1 t2"])).all()  # and it goes on working


@pytest.mark.parametrize(
    ("activation", "tensor"),
    [
        ("gelu_new", "h.0.mlp.c_fc.bias"),
        ("gelu_new", "h.0.ln_2.weight"),
        ("relu", "h.0.ln_2.weight"),
        ("tanh", "h.0.ln_2.weight"),
    ],
)
def test_an_overflow_of_f16_is_an_error_that_says_so(activation: str, tensor: str, use_gpu: None, device: Device, tmp_path: Path):
    """Infinity times weights of both signs is NaN, which relu and tanh of a GPU may turn into a number."""
    if not device.half:
        pytest.skip("the device has no shader-f16")
    folder = tiny_gpt2(tmp_path, change={tensor: lambda w: w * 1e7}, activation_function=activation)
    texts = ["t1 t2 t3", "t4"]
    assert np.isfinite(Encoder(folder, device="gpu", dtype="float32").encode(texts)).all()
    message = refusal(lambda: Encoder(folder, device="gpu", dtype="float16").encode(texts))
    assert "holds NaN or Inf" in message
    assert "use dtype='float32'" in message


def test_an_overflow_is_not_hidden_by_a_dense_module(make: Callable[..., Encoder], tmp_path: Path):
    """sentence-transformers' Dense ends in tanh, which makes a number of NaN on some GPUs."""
    tiny_gpt2(tmp_path, change={"wte.weight": with_row(7, 3e38)})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    entries = [{"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(modules)]
    (tmp_path / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    for path, config in (("1_Pooling", {"word_embedding_dimension": 8}), ("2_Dense", {"in_features": 8, "out_features": 8})):
        (tmp_path / path).mkdir()
        (tmp_path / path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {"linear.weight": np.eye(8, dtype="f"), "linear.bias": np.zeros(8, "f")}, tmp_path / "2_Dense" / "model.safetensors"
    )
    model = make(tmp_path)
    assert np.isfinite(model.encode("t1")).all()
    with np.errstate(all="ignore"):
        assert "text 1 holds NaN or Inf" in refusal(lambda: model.encode(["t1", "t7"]))


# --- layer and pooling


@pytest.mark.parametrize("name", ["gpt2_five_layers_bf16", "bert_tanh_bf16", "roberta"])
def test_every_layer_is_hidden_states_of_transformers(name: str, make: Callable[..., Encoder], tmp_path: Path):
    folder = golden(name, tmp_path)
    with np.load(folder / "expected.npz") as expected:
        sequences = np.split(expected["ids"], np.cumsum(expected["lengths"])[:-1])
        hidden = [np.split(h, np.cumsum(expected["lengths"])[:-1]) for h in expected["hidden"]]
    texts = [" ".join(f"t{i}" for i in ids) for ids in sequences]
    sizes = []
    for layer, states in enumerate(hidden):
        for pooling, pooled in (("mean", lambda h: h.mean(0)), ("last", lambda h: h[-1])):
            model = make(folder, layer=layer, pooling=pooling)
            want = np.stack([pooled(h) for h in states])
            assert np.abs(model.encode(texts) - want).max() <= 1e-4 * np.abs(want).max()
        sizes.append(model.info()["bytes on device"])
    assert sizes == sorted(set(sizes))  # only the blocks that are needed are uploaded


def test_a_layer_out_of_range(tmp_path: Path):
    folder = tiny_gpt2(tmp_path, layers=2)
    for wrong in (-1, 3, 1.0, "1", True):
        message = refusal(lambda wrong=wrong: Encoder(folder, device="numpy", layer=wrong))
        assert message == f"layer must be a whole number from 0 to 2, not {wrong!r}"
    assert Encoder(folder, device="numpy", layer=np.int32(0)).layer == 0


@pytest.mark.parametrize(("layers", "expected"), [(1, 1), (2, 1), (3, 2), (6, 4), (12, 7)])
def test_the_default_layer_of_a_raw_gpt2(layers: int, expected: int, tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path, layers=layers), device="numpy")
    assert model.layer == expected
    used = str(model.info()["layer used"])
    assert used.startswith(f"{expected} of {layers} (")
    assert ("default" in used) == (expected < layers)


def test_the_default_layer_of_other_models(built_in: Encoder):
    assert built_in.layer == 6
    for folder, layers in (("sentence_models/plain_bert", 2), ("sentence_models/old_gpt2_last", 2), ("models/roberta", 2)):
        assert default_layer(checkpoint.load(GOLDEN / folder)) == layers
    assert [default_layer(checkpoint.load(GOLDEN / "models" / f"gpt2_{n}")) for n in ("five_layers_bf16", "inverse_layer")] == [
        3,
        2,
    ]


def test_pooling(tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    tokens = np.stack([Encoder(folder, device="numpy", pooling="last").encode(t) for t in ("t1", "t1 t2", "t1 t2 t3")])
    n = np.array([[1], [2], [3]])
    want = {
        "mean": tokens.mean(0),
        "cls": tokens[0],
        "max": tokens.max(0),
        "last": tokens[2],
        "weighted_mean": (tokens * n).sum(0) / 6,
        "sqrt_len_mean": tokens.sum(0) / np.sqrt(3),
        None: tokens.mean(0),
    }
    for pooling, vector in want.items():
        model = Encoder(folder, device="numpy", pooling=pooling)
        np.testing.assert_allclose(model.encode("t1 t2 t3"), vector, atol=1e-5)
        assert model.info()["pooling"] == (pooling or "mean")
    message = refusal(lambda: Encoder(folder, device="numpy", pooling="median"))
    assert message == "pooling must be one of mean, cls, max, last, weighted_mean, sqrt_len_mean, not 'median'"


def test_a_pooling_that_the_dense_module_cannot_take():
    message = refusal(lambda: Encoder(GOLDEN / "sentence_models" / "old_bert_cls_max_dense", device="numpy", pooling="mean"))
    assert message == "2_Dense takes 32 inputs, the pooling gives 16: choose another pooling"


# --- devices and dtypes


def test_without_a_real_gpu_auto_is_numpy(monkeypatch: pytest.MonkeyPatch):
    software = device_module.Adapter(0, "llvmpipe", "CPU", "Vulkan", "", frozenset(), {}, None)
    for found in ((), (software,)):
        monkeypatch.setattr(device_module, "adapters", lambda found=found: found)
        monkeypatch.setattr(backend, "has_gpu_node", lambda: True)
        model = Encoder(layer=0)
        assert model.device == "numpy"
        assert model.device_reason == "no GPU found: computing with numpy on the CPU"
        assert model.dtype == "float32"


def test_auto_loads_no_driver_where_no_gpu_can_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "adapters", lambda: pytest.fail("it looked for adapters"))
    monkeypatch.setattr(backend, "has_gpu_node", lambda: False)
    assert Encoder(layer=0).device == "numpy"


def test_device_files_of_a_gpu(monkeypatch: pytest.MonkeyPatch):
    for platform, nodes, possible in (
        ("linux", {"/dev/dri"}, True),
        ("linux", {"/dev/dxg"}, True),
        ("linux", {"/dev/nvidiactl"}, True),
        ("linux", {"/dev/null"}, False),
        ("darwin", set(), True),
        ("win32", set(), True),
    ):
        monkeypatch.setattr(backend.sys, "platform", platform)
        monkeypatch.setattr(backend.Path, "exists", lambda path, nodes=nodes: str(path) in nodes)
        assert backend.has_gpu_node() == possible
        monkeypatch.undo()


def test_device_numpy_looks_for_no_adapter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "adapters", lambda: pytest.fail("it looked for adapters"))
    for name in ("numpy", "cpu"):
        assert Encoder(device=name, layer=0).device == "numpy"


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "adapters", lambda: ())
    message = refusal(lambda: Encoder(device="gpu"))
    assert "no WebGPU adapter found" in message
    assert "mesa-vulkan-drivers" in message
    assert "device='numpy'" in message


def test_the_environment_decides_what_auto_means(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    assert Encoder(layer=0).device_reason == "numpy on the CPU, as asked"
    monkeypatch.setenv("GPT2WGPU_DEVICE", "")
    monkeypatch.setattr(device_module, "adapters", lambda: ())
    assert Encoder(layer=0).device == "numpy"
    monkeypatch.setenv("GPT2WGPU_DEVICE", "no such adapter")
    assert "no such adapter" in refusal(Encoder)
    assert Encoder(device="numpy", layer=0).device == "numpy"


def test_a_device_by_number_and_name(device: Device):
    for name in (str(device.adapter.index), device.adapter.name[:5].upper(), device.adapter.index):
        model = Encoder(device=name, layer=0)
        assert model.device == str(choose(str(name)))
        assert "as asked" in model.device_reason
        assert np.isfinite(model.encode("a")).all()


def test_device_none_is_auto(monkeypatch: pytest.MonkeyPatch):
    """As in sentence-transformers."""
    monkeypatch.setenv("GPT2WGPU_DEVICE", "numpy")
    assert Encoder(device=None, layer=0).device == "numpy"


def test_dtypes_in_numpy(built_in: Encoder):
    assert built_in.dtype == "float32"
    assert Encoder(device="numpy", dtype="f32", layer=0).dtype == "float32"
    assert refusal(lambda: Encoder(device="numpy", dtype="float16")) == "dtype float16 needs a GPU: numpy computes in float32"
    assert "not 'bfloat16'" in refusal(lambda: Encoder(device="numpy", dtype="bfloat16"))


def test_dtypes_on_a_gpu(use_gpu: None, device: Device, tmp_path: Path):
    folder = tiny_gpt2(tmp_path)
    assert Encoder(folder, device="gpu").dtype == ("float16" if device.half and not device.adapter.software else "float32")
    if not device.half:
        assert "has no shader-f16; use float32" in refusal(lambda: Encoder(folder, device="gpu", dtype="f16"))
        return
    half, single = (Encoder(folder, device="gpu", dtype=d) for d in ("f16", "f32"))
    assert (half.dtype, single.dtype) == ("float16", "float32")
    assert half.info()["bytes on device"] < single.info()["bytes on device"]
    found = half.encode("t1 t2")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, single.encode("t1 t2"), atol=0.02)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many", True])
def test_a_wrong_token_budget(wrong: Any):
    assert "max_tokens must be a whole number from 1" in refusal(lambda: Encoder(device="numpy", max_tokens=wrong))


def test_info(make: Callable[..., Encoder], built_in: Encoder):
    model = make(dtype="float32")
    found = model.info()
    assert found.pop("device") == model.device
    assert found.pop("bytes on device") >= 4 * found["parameters"]
    assert str(found.pop("layer used")).startswith("6 of 6 (")
    assert found.pop("matmul") == model.matmul in ("BLAS", "matmul_registers", "matmul_workgroup")
    assert found == {
        "model": "built-in",
        "architecture": "gpt2",
        "layers": 6,
        "width": 256,
        "heads": 4,
        "vocabulary": 12288,
        "parameters": sum(a.size for a in built_in._program.weights.values()),
        "pooling": "mean then Normalize",
        "dimensions": 256,
        "max_seq_length": 64,
        "prompts": "none",
        "similarity": "cosine",
        "dtype": "float32",
        "tokens per batch": 2048,
    }


def test_info_of_a_folder_with_modules():
    found = Encoder(GOLDEN / "sentence_models" / "new_xlmr_max_mean", device="numpy", layer=0, truncate_dim=4).info()
    assert found["layer used"] == "0 of 2 (the embeddings)"
    assert found["pooling"] in ("max + mean then Dense 14", "mean + max then Dense 14")
    assert found["dimensions"] == 4
    assert set(str(found["prompts"]).split(", ")) == {"query", "document"}


# --- threads


def test_four_threads_share_an_encoder(make: Callable[..., Encoder]):
    model = make(layer=1, max_tokens=64)
    texts = [f"{t} number {i}" for i in range(10) for t in TEXTS]
    expected = model.encode(texts)
    matrix = model.similarity(expected, expected)

    def work(seed: int) -> None:
        for _ in range(3):
            order = np.random.default_rng(seed).permutation(len(texts)).tolist()
            found = model.encode([texts[i] for i in order])
            if model.device != "numpy":
                np.testing.assert_array_equal(found, expected[order])
            np.testing.assert_allclose(found, expected[order], atol=1e-6)
            np.testing.assert_allclose(model.similarity(found, found), matrix[order][:, order], atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_two_encoders_at_once_leave_the_threads_of_blas_as_they_were():
    """The limit that a numpy batch sets is the whole process's."""
    from threadpoolctl import threadpool_info

    def limits() -> list[int]:
        return [library["num_threads"] for library in threadpool_info()]

    before = limits()
    models = [Encoder(device="numpy", layer=1) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda m: [m.encode(TEXTS * 10) for _ in range(20)], models))
    assert limits() == before


FORK = """
import os, signal
from gpt2wgpu import Encoder
model = Encoder(device="numpy", layer=1)
expected = model.encode(["a", "b"] * 9)
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(30)  # ends it if it waits for ever
os._exit(0 if (model.encode(["a", "b"] * 9) == expected).all() else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_may_go_on_with_the_encoder():
    """As with multiprocessing on Linux: threads stay behind in the parent."""
    done = subprocess.run([sys.executable, "-c", FORK], cwd=Path(__file__).parents[1], timeout=60, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


# --- similarity

SIMILARITIES: dict[str, Callable[[Array, Array], float]] = {
    "cosine": lambda x, y: float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)),
    "dot": lambda x, y: float(x @ y),
    "euclidean": lambda x, y: -float(np.linalg.norm(x - y)),
    "manhattan": lambda x, y: -float(np.abs(x - y).sum()),
}


@pytest.fixture
def by_name(make: Callable[..., Encoder]) -> Callable[[str], Encoder]:
    return lambda name: make(layer=0, similarity_fn_name=name)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity(name: str, by_name: Callable[[str], Encoder]):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((7, 37)), rng.standard_normal((70, 37))
    want = np.array([[SIMILARITIES[name](x, y) for y in b] for x in a])
    model = by_name(name)
    found = model.similarity(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, atol=1e-4)
    np.testing.assert_allclose(model.similarity(a.tolist(), b[0]), want[:, :1], atol=1e-4)
    pairs = model.similarity_pairwise(a, b[:7])
    assert (pairs.shape, pairs.dtype) == ((7,), np.float32)
    np.testing.assert_allclose(pairs, np.diag(want), atol=1e-4)
    np.testing.assert_allclose(model.similarity_pairwise(a[0], b[0]), want[:1, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "manhattan"])
def test_similarity_in_blocks(name: str, by_name: Callable[[str], Encoder]):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2049, 3), dtype=np.float32), rng.standard_normal((4100, 3), dtype=np.float32)
    found = by_name(name).similarity(a, b)
    assert found.shape == (2049, 4100)
    for i, j in ((0, 0), (2047, 2047), (2048, 2048), (2047, 2048), (2048, 4099), (0, 4096)):
        assert abs(found[i, j] - SIMILARITIES[name](a[i], b[j])) < 1e-5
    np.testing.assert_allclose(found[::97, ::89], by_name(name).similarity(a[::97], b[::89]), atol=1e-6)


def test_similarity_of_a_zero_vector(by_name: Callable[[str], Encoder]):
    model = by_name("cosine")
    a = np.zeros((1, 4))
    assert model.similarity(a, np.ones((1, 4))).tolist() == [[0]]
    assert model.similarity_pairwise(a, np.ones((1, 4))).tolist() == [0]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_of_no_vectors(name: str, by_name: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch):
    """A program of no rows would end the process: wgpu panics on a binding of no bytes."""
    from gpt2wgpu import gpu

    class Guarded(gpu.Program):
        def __init__(self, *args: Any) -> None:
            assert all(args[3].values()), "a capacity of 0"
            super().__init__(*args)

    model = by_name(name)
    monkeypatch.setattr(gpu, "Program", Guarded)
    none, some = np.empty((0, 4)), np.ones((2, 4))
    for a, b, shape in ((none, some, (0, 2)), (some, none, (2, 0)), (none, none, (0, 0))):
        found = model.similarity(a, b)
        assert (found.shape, found.dtype) == (shape, np.float32)
    assert model.similarity_pairwise(none, none).shape == (0,)
    assert model.similarity_matrix([]).shape == (0, 0)


def test_similarity_refuses_what_does_not_fit(built_in: Encoder):
    assert "one length, got 3 and 4" in refusal(lambda: built_in.similarity(np.ones((2, 3)), np.ones((2, 4))))
    assert "(2, 3) and (1, 3)" in refusal(lambda: built_in.similarity_pairwise(np.ones((2, 3)), np.ones((1, 3))))
    for method in (built_in.similarity, built_in.similarity_pairwise):
        assert "3 dimensions" in refusal(lambda method=method: method(np.ones((2, 3, 4)), np.ones((2, 3))))
        refusal(lambda method=method: method([], []))  # vectors of no numbers
    message = refusal(lambda: Encoder(device="numpy", similarity_fn_name="jaccard"))
    assert message == "similarity_fn_name must be one of cosine, dot, euclidean, manhattan, not 'jaccard'"


def test_similarity_matrix(make: Callable[..., Encoder]):
    model = make()
    texts = ["The cat is sleeping", "A feline is resting", "Stock markets fell sharply"]
    matrix = model.similarity_matrix(texts)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert matrix[0, 1] > max(matrix[0, 2], matrix[1, 2])
    np.testing.assert_allclose(model.similarity_matrix(t for t in texts), matrix, atol=1e-6)
    np.testing.assert_allclose(
        model.similarity_matrix(texts, truncate_dim=9), model.similarity(*[model.encode(texts, truncate_dim=9)] * 2), atol=1e-6
    )
