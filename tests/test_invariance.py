"""A text's vector does not depend on its batch: the same bits on a GPU, the same to 1e-6 in numpy."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2wgpu import Encoder
from gpt2wgpu.gpu import Device
from gpt2wgpu.graph.tensor import Array

GOLDEN = Path(__file__).parent / "golden" / "models"
TEXT = (
    "the a cat sleeps dog runs quick brown fox jumps over lazy river matrices vectors computes 12 °C while rain falls "
    "outside 東京 warm windows electroencephalography and, (perhaps) 3.14159! über 🙂"
)
WORDS = TEXT.split()

Make = Callable[..., Encoder]


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """Mostly short, some at the model's limit and past it."""
    rng = np.random.default_rng(seed)
    lengths = 1 + (60 * rng.random(count) ** 3).astype(int)
    return [" ".join(rng.choice(WORDS, n)) for n in lengths]


def encode(model: Encoder, texts: list[str], **options: Any) -> Array:
    """Without the warning that texts were cut, which is not the subject here."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return model.encode(texts, **options)


@pytest.fixture
def on_gpu(production_device: Device, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Encoders on the tests' device, its shaders as users run them."""
    return encoders_on(production_device, monkeypatch)


@pytest.fixture(params=["as it is", "as a GPU"])
def on_gpu_form(
    request: pytest.FixtureRequest, production_device: Device, as_on_a_gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> Make:
    """The same, and with the kernels that a real GPU gets."""
    return encoders_on(production_device if request.param == "as it is" else as_on_a_gpu, monkeypatch)


def encoders_on(device: Device, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr("gpt2wgpu.encoder.find_device", lambda wanted: (device, "the device of the tests"))

    def make(model: Path | None = None, *, dtype: str = "float32", **options: Any) -> Encoder:
        if dtype == "float16" and not device.has_f16:
            pytest.skip("the device has no shader-f16")
        return Encoder(model, device="gpu", dtype=dtype, **options)

    return make


@pytest.fixture(scope="session")
def odd_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Golden models with sizes that no tile divides, with a tokenizer: "t5" is token 5."""
    root = tmp_path_factory.mktemp("odd")

    def make(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            from tokenizers import Tokenizer, models, pre_tokenizers

            shutil.copytree(GOLDEN / name, folder)
            vocab = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
            tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    return make


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_80_texts_give_the_same_bits_in_every_batch(dtype: str, on_gpu: Make):
    """The first block has every kernel of the model; more blocks are in the next test."""
    texts = mixed_texts(80)
    model = on_gpu(dtype=dtype, layer=1)
    expected = encode(model, texts)
    assert expected.shape == (80, model.dimensions)
    assert len(np.unique(expected, axis=0)) == len(set(texts))

    alone = np.random.default_rng(1).permutation(80)[:16].tolist()
    np.testing.assert_array_equal(np.stack([encode(model, [texts[i]])[0] for i in alone]), expected[alone])
    shuffled = np.random.default_rng(2).permutation(80).tolist()
    np.testing.assert_array_equal(encode(model, [texts[i] for i in shuffled], batch_size=37), expected[shuffled])
    some = texts[:40]
    np.testing.assert_array_equal(encode(model, some, batch_size=7), expected[:40])
    for tokens in (64, 100, 20000):
        np.testing.assert_array_equal(encode(on_gpu(dtype=dtype, layer=1, max_tokens=tokens), some), expected[:40])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_whole_built_in_model_gives_the_same_bits_in_every_batch(dtype: str, on_gpu: Make):
    texts = mixed_texts(12, seed=3)
    model = on_gpu(dtype=dtype)
    expected = encode(model, texts)
    np.testing.assert_array_equal(np.stack([encode(model, [t])[0] for t in texts[:5]]), expected[:5])
    np.testing.assert_array_equal(encode(on_gpu(dtype=dtype, max_tokens=100), texts), expected)
    np.testing.assert_array_equal([*model.encode_stream([texts[0]] * 3)], [expected[0]] * 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", ["gpt2_25_heads_f16", "gpt2_tanh", "bert_relu_odd", "roberta_pad_5"])
def test_odd_sizes_give_the_same_bits_in_every_batch(name: str, dtype: str, on_gpu_form: Make, odd_models: Callable[[str], Path]):
    rng = np.random.default_rng(4)
    texts = [" ".join(f"t{i}" for i in rng.integers(6, 60, n)) for n in rng.integers(1, 49, 40)]
    model = on_gpu_form(odd_models(name), dtype=dtype)
    expected = encode(model, texts)
    assert len(np.unique(expected, axis=0)) == len(set(texts))
    np.testing.assert_array_equal(np.stack([encode(model, [t])[0] for t in texts[:20]]), expected[:20])
    order = rng.permutation(40).tolist()
    np.testing.assert_array_equal(encode(model, [texts[i] for i in order], batch_size=7), expected[order])
    for tokens, some in ((1, texts[:5]), (64, texts)):
        model = on_gpu_form(odd_models(name), dtype=dtype, max_tokens=tokens)
        np.testing.assert_array_equal(encode(model, some), expected[: len(some)])


@pytest.mark.parametrize("pooling", ["cls", "max", "last", "weighted_mean", "sqrt_len_mean"])
def test_every_pooling_gives_the_same_bits(pooling: str, on_gpu_form: Make, odd_models: Callable[[str], Path]):
    rng = np.random.default_rng(5)
    texts = [" ".join(f"t{i}" for i in rng.integers(0, 64, n)) for n in rng.integers(1, 49, 40)]
    model = on_gpu_form(odd_models("gpt2_head_2"), pooling=pooling)
    expected = encode(model, texts)
    np.testing.assert_array_equal(np.stack([encode(model, [t])[0] for t in texts[:20]]), expected[:20])


def test_normalised_and_cut_vectors_do_not_depend_on_the_batch_either(on_gpu: Make, odd_models: Callable[[str], Path]):
    """Both happen on the host, after the GPU."""
    rng = np.random.default_rng(6)
    texts = [" ".join(f"t{i}" for i in rng.integers(0, 64, n)) for n in rng.integers(1, 49, 40)]
    model = on_gpu(odd_models("gpt2_25_heads_f16"))
    for options in ({"normalize_embeddings": True}, {"normalize_embeddings": True, "truncate_dim": 33}):
        together = encode(model, texts, **options)
        np.testing.assert_array_equal(np.stack([encode(model, [t], **options)[0] for t in texts]), together)
        np.testing.assert_array_equal(np.stack([*model.encode_stream(texts, batch_size=3, **options)]), together)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_states_of_tokens_do_not_depend_on_the_batch_either(dtype: str, on_gpu: Make, odd_models: Callable[[str], Path]):
    rng = np.random.default_rng(8)
    texts = [" ".join(f"t{i}" for i in rng.integers(6, 60, n)) for n in rng.integers(1, 49, 30)]
    model = on_gpu(odd_models("bert_relu_odd"), dtype=dtype, max_tokens=100)
    together = encode(model, texts, output_value="token_embeddings")
    for i in rng.permutation(30)[:10]:
        np.testing.assert_array_equal(encode(model, [texts[i]], output_value="token_embeddings")[0], together[i])
    numpy = Encoder(odd_models("bert_relu_odd"), device="numpy", dtype="int8" if dtype == "int8" else "float32")
    for found, want in zip(together, encode(numpy, texts, output_value="token_embeddings"), strict=True):
        np.testing.assert_allclose(found, want, atol=(1e-4 if dtype == "float32" else 3e-2) * np.abs(want).max())


def test_numpy_agrees_with_itself_to_1e_6():
    """BLAS sums in an order that depends on the number of rows."""
    texts = mixed_texts(100, seed=7)
    model = Encoder(device="numpy")
    expected = encode(model, texts)
    assert np.abs(np.stack([encode(model, [t])[0] for t in texts[:30]]) - expected[:30]).max() <= 1e-6
    assert np.abs(encode(model, texts[::-1], batch_size=7)[::-1] - expected).max() <= 1e-6
    assert np.abs(encode(Encoder(device="numpy", max_tokens=64), texts) - expected).max() <= 1e-6
