"""An Encoder's options as attributes, the methods and keywords of SentenceTransformer, and folders that it saves."""

import enum
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import GOLDEN, golden, refusal, tiny_gpt2

from gpt2wgpu import Encoder, checkpoint
from gpt2wgpu.checkpoint import Dense, Normalize, Pooling

MODELS = GOLDEN / "sentence_models"
TEXTS = ["the cat sleeps", "a dog"]


class Similarity(enum.Enum):
    """As sentence-transformers' SimilarityFunction."""

    DOT = "dot"
    MAXSIM = "maxsim"


def test_attributes_are_checked_when_they_are_set(tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", similarity_fn_name=Similarity.DOT)
    assert model.similarity_fn_name == "dot"
    for wrong in ("nope", Similarity.MAXSIM, 5):
        with pytest.raises(ValueError, match="similarity_fn_name must be one of cosine, dot, euclidean, manhattan, not"):
            model.similarity_fn_name = wrong
    assert model.similarity_fn_name == "dot"
    model.similarity_fn_name = None
    assert model.similarity_fn_name == "cosine"
    with model.truncate_embeddings(3):
        assert model.encode("t1").shape == (3,) and model.get_embedding_dimension() == 3
    assert model.encode("t1").shape == (8,)
    with pytest.raises(RuntimeError), model.truncate_embeddings(3):
        raise RuntimeError
    assert model.truncate_dim is None


def test_names_of_sentence_transformers():
    model = Encoder(MODELS / "new_bert_sqrt_dense", device="cpu", truncate_dim=4)
    assert model.get_embedding_dimension() == model.get_sentence_embedding_dimension() == 4
    assert model.get_max_seq_length() == model.max_seq_length
    assert len(model) == 4
    assert model[0] is model.checkpoint.config
    assert [type(model[i]) for i in (1, 2, 3, -1)] == [Pooling, Dense, Normalize, Normalize]
    assert [*model] == [model[i] for i in range(4)]
    with pytest.raises(IndexError):
        model[4]
    assert repr(model).startswith("Encoder('") and repr(model).endswith(
        "new_bert_sqrt_dense', device='numpy', dtype='float32', dimensions=4)"
    )


def test_tokens(tmp_path: Path):
    model = Encoder(golden("bert_tanh_bf16", tmp_path), device="numpy", max_seq_length=3)
    found = model.tokenize(["t1", "t2 t3 t4 t5"])
    pad = model.tokenizer.pad_id()
    assert found["input_ids"].tolist() == [[1, pad, pad], [2, 3, 4]]
    assert found["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert {a.dtype for a in found.values()} == {np.dtype(np.int64)}
    assert model.preprocess(["t1"], prompt="t9 ")["input_ids"].tolist() == [[9, 1]]
    assert model.tokenize([])["input_ids"].shape == (0, 0)


def test_where_it_stays(make: Callable[..., Encoder], tmp_path: Path):
    model = make(tiny_gpt2(tmp_path))
    here, there = ("cpu", "gpu") if model.device == "numpy" else ("gpu", "cpu")
    assert model.to(here) is model.to(None) is model.to() is model.eval() is model
    assert "where it was opened: open another Encoder with device=" in refusal(lambda: model.to(there))
    assert "use 'gpu'" in refusal(lambda: model.to("cuda"))
    if here == "cpu":
        assert model.cpu() is model
        assert "open another Encoder with dtype='float16'" in refusal(model.half)
    else:
        assert "open another" in refusal(model.cpu)


def test_what_is_compiled_cannot_be_set_later(tmp_path: Path):
    """It would change nothing, silently."""
    model = Encoder(tiny_gpt2(tmp_path), device="numpy")
    for name, value in {"layer": 0, "pooling": "cls", "modules": (), "device": "gpu", "dtype": "int8"}.items():
        with pytest.raises(AttributeError, match=name):
            setattr(model, name, value)


def test_prompts_are_checked_when_they_are_set(tmp_path: Path):
    model = Encoder(tiny_gpt2(tmp_path), device="numpy", prompts={"query": "t1 ", "document": None})
    assert model.prompts == {"query": "t1 ", "document": ""}
    for wrong in ("query: ", ["query: "], {"query": 5}, {5: "t1 "}, {"query": b"t1 "}, {"query": "\ud800"}, None):
        with pytest.raises(ValueError, match=r"^prompts (must be a dict|holds )"):
            model.prompts = wrong  # type: ignore[assignment]
        if wrong is not None:
            assert refusal(lambda wrong=wrong: Encoder(tmp_path, device="numpy", prompts=wrong)).startswith("prompts ")
    with pytest.raises(ValueError, match="'nope' is not among the model's prompts"):
        model.default_prompt_name = "nope"
    assert model.default_prompt_name is None and model.prompts["query"] == "t1 "
    model.prompts = {"a": "t2 "}
    model.default_prompt_name = "a"
    np.testing.assert_array_equal(model.encode("t3"), model.encode("t2 t3", prompt=""))


@pytest.mark.parametrize("model", [5, object(), b"folder", ["folder"]])
def test_a_model_that_is_no_name(model: object):
    expected = (
        f"model must be a folder or a name on the hub, not a {type(model).__name__}: save a model to a folder and open that"
    )
    assert refusal(lambda: Encoder(model)) == refusal(lambda: Encoder(model_name_or_path=model)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"trust_remote_code": False},
        {"backend": "torch"},
        {"model_kwargs": {}, "processor_kwargs": None, "tokenizer_kwargs": {}, "config_kwargs": {}},
        {"use_auth_token": None, "token": None},
        {"prompts": {"query": "q: ", "document": None}},
        {"modules": None, "model_card_data": None},
    ],
)
def test_keywords_that_change_nothing_are_accepted(given: dict[str, Any], built_in: Encoder):
    model = Encoder(device="cpu", layer=0, **given)
    assert model.encode("a", prompt_name="document" if "prompts" in given else None).shape == (384,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trust_remote_code": True}, "trust_remote_code=True: a repository's own code is never run here"),
        ({"backend": "onnx"}, "backend='onnx': leave it out"),
        (
            {"model_kwargs": {"torch_dtype": "float16"}},
            "model_kwargs holds 'torch_dtype', .* use dtype='float32', 'float16' or 'int8'",
        ),
        ({"processor_kwargs": {"model_max_length": 9}}, "processor_kwargs holds 'model_max_length', .* use max_seq_length="),
        ({"tokenizer_kwargs": {"padding_side": "left"}}, "tokenizer_kwargs holds 'padding_side', .* put what it stands for into"),
        ({"config_kwargs": {"num_hidden_layers": 1}}, "config_kwargs holds 'num_hidden_layers', .* use layer="),
        ({"modules": [object()]}, "modules holds objects of sentence-transformers: save that model to a folder"),
        ({"device": "cuda"}, "device 'cuda' is a torch device, and torch is not used here: use 'gpu'"),
        ({"device": "cuda:0"}, "device 'cuda:0' is a torch device"),
        ({"device": "mps"}, "device 'mps' is a torch device"),
    ],
)
def test_keywords_that_cannot_be_done_say_what_to_use(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        Encoder(**given)
    assert "\n" not in str(caught.value)


def test_the_old_names_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tiny_gpt2(tmp_path)
    assert Encoder(model_name_or_path=folder, device="cpu").model == str(folder)
    asked = {}
    find_model = checkpoint.load_checkpoint
    monkeypatch.setattr("gpt2wgpu.hub.find_model", lambda model, **options: asked.update(options) or folder)
    Encoder("org/name", device="cpu", use_auth_token="secret")
    assert asked["token"] == "secret" and find_model is checkpoint.load_checkpoint


# --- saving


def encode_quietly(model: Encoder) -> np.ndarray:
    """Without the warning that texts were cut, which is not the subject here."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return model.encode_query(TEXTS)


@pytest.mark.parametrize("name", sorted(p.name for p in MODELS.iterdir()))
def test_a_saved_folder_is_the_same_model(name: str, tmp_path: Path):
    model = Encoder(MODELS / name, device="numpy", dtype="int8")  # weights keep the dtype of the files
    model.save(tmp_path / "saved")
    saved = Encoder(tmp_path / "saved", device="numpy")
    original = Encoder(MODELS / name, device="numpy")
    np.testing.assert_array_equal(encode_quietly(saved), encode_quietly(original))
    for attribute in (
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
        "max_seq_length",
        "truncate_dim",
        "modules",
        "layer",
    ):
        assert getattr(saved, attribute) == getattr(original, attribute), attribute
    assert (tmp_path / "saved" / "modules.json").exists()


@pytest.mark.parametrize("name", ["old_bert_mean", "new_gpt2_weighted", "plain_bert", "new_xlmr_max_mean"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last", "weighted_mean", "sqrt_len_mean"])
def test_changed_options_are_saved(name: str, pooling: str, tmp_path: Path):
    if name == "new_xlmr_max_mean":  # its Dense takes two poolings side by side
        pooling = None  # type: ignore[assignment]
    model = Encoder(MODELS / name, device="numpy", pooling=pooling, prompts={"query": "a é: ", "other": ""})
    model.default_prompt_name, model.truncate_dim, model.similarity_fn_name, model.max_seq_length = "other", 5, "manhattan", 7
    model.save_pretrained(str(tmp_path / "saved"), model_name="x", create_model_card=False)
    saved = Encoder(tmp_path / "saved", device="numpy")
    for attribute in ("prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "max_seq_length", "modules"):
        assert getattr(saved, attribute) == getattr(model, attribute), attribute
    np.testing.assert_array_equal(encode_quietly(saved), encode_quietly(model))
    saved.truncate_dim = None
    saved.save(tmp_path / "again")
    assert "truncate_dim" not in json.loads((tmp_path / "again" / "config_sentence_transformers.json").read_text())


def test_a_model_in_a_folder_of_its_own_inside(tmp_path: Path):
    """0_Transformer, as older versions wrote it; and a folder with other files, which are not copied."""
    shutil.copytree(MODELS / "old_bert_mean", tmp_path / "model" / "0_Transformer")
    for name in ("modules.json", "1_Pooling", "config_sentence_transformers.json"):
        (tmp_path / "model" / "0_Transformer" / name).rename(tmp_path / "model" / name)
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "model" / "README.md").write_text("a card")
    (tmp_path / "model" / "optimizer.pt").write_text("not for us")
    model = Encoder(tmp_path / "model", device="numpy", max_seq_length=9)
    model.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == "a card"
    assert not (tmp_path / "saved" / "optimizer.pt").exists()
    saved = Encoder(tmp_path / "saved", device="numpy")
    assert saved.max_seq_length == 9
    np.testing.assert_array_equal(encode_quietly(saved), encode_quietly(model))


def test_what_cannot_be_saved_is_refused(tmp_path: Path):
    folder = tiny_gpt2(tmp_path / "model", layers=3)
    target = tmp_path / "saved"
    model = Encoder(folder, device="numpy")
    assert "vectors of layer 2 of 3 cannot be saved" in refusal(lambda: model.save(target))
    last = Encoder(folder, device="numpy", layer=3)
    assert "vectors of layer 1, 3 of 3 cannot be saved" in refusal(lambda: last.with_layers([1, 3]).save(target))
    assert "asks for a pickle" in refusal(lambda: last.save(target, safe_serialization=False))
    assert "is there already" in refusal(lambda: last.save(folder))
    (tmp_path / "file").write_text("")
    assert "is there already" in refusal(lambda: last.save(tmp_path / "file"))
    assert not target.exists()
    target.mkdir()
    last.save(target)  # an empty folder may be there
    assert Encoder(target, device="numpy").layer == 3
    assert json.loads((target / "tokenizer_config.json").read_text())["pad_token"] == "<|endoftext|>"


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = Encoder(tiny_gpt2(tmp_path / "model"), device="numpy")

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2wgpu.checkpoint.saving.write_object", stop)
    with pytest.raises(KeyboardInterrupt):
        model.save(tmp_path / "saved")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
