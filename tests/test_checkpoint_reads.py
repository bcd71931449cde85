"""Which files of a model folder were read, for whoever has to know whether a model is still the same."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from gpt2wgpu import Encoder
from gpt2wgpu.checkpoint import load_checkpoint

GOLDEN = Path(__file__).parent / "golden"
OPENED: list[Path] | None = None


def note_opened(event: str, args: tuple[object, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(args[0], str | Path):
        OPENED.append(Path(args[0]))


sys.addaudithook(note_opened)  # which nothing can remove


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], set[Path]]:
    """The files inside a folder that Python opened since the test began."""
    found: list[Path] = []
    monkeypatch.setattr(sys.modules[__name__], "OPENED", found)
    return lambda folder: {path for path in found if path.is_relative_to(folder) and path.is_file()}


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in load_checkpoint(folder).files_read]


def move_modules(folder: Path, **folders: str) -> None:
    """Give each kind of module another folder, as modules.json may say."""
    entries = json.loads((folder / "modules.json").read_text())
    for entry in entries:
        kind = entry["type"].rsplit(".", 1)[-1]
        if kind in folders:
            (folder / entry["path"]).rename(folder / folders[kind])
            entry["path"] = folders[kind]
    tiny.write_json(folder / "modules.json", entries)


def test_files_read_of_a_plain_folder(tmp_path: Path):
    tiny.save(tmp_path, tiny.bert_config())
    for name in ("README.md", "training_args.json", "pytorch_model.bin", "modules.txt"):
        (tmp_path / name).write_text("none of the model's")
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_text("{}")
    assert names(tmp_path) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]


def test_files_read_of_modules_in_any_folder(tmp_path: Path):
    tiny.sentence_model(tmp_path, None, "Pooling", "Dense", "Normalize")
    tiny.save_dense(tmp_path / "2_Dense", 8, 3)
    (tmp_path / "3_Normalize").mkdir()
    (tmp_path / "body").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).rename(tmp_path / "body" / name)
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[0]["path"] = "body"
    tiny.write_json(tmp_path / "modules.json", entries)
    move_modules(tmp_path, Dense="head", Pooling="pooling")
    for name in ("body/sentence_bert_config.json", "3_Normalize/config.json", "config_sentence_transformers.json"):
        tiny.write_json(tmp_path / name, {})
    assert names(tmp_path) == [
        "3_Normalize/config.json",
        "body/config.json",
        "body/model.safetensors",
        "body/sentence_bert_config.json",
        "config_sentence_transformers.json",
        "head/config.json",
        "head/model.safetensors",
        "modules.json",
        "pooling/config.json",
    ]


@pytest.mark.parametrize("folder", sorted((GOLDEN / "sentence_models").iterdir()), ids=lambda path: path.name)
def test_nothing_else_is_opened(folder: Path, opened: Callable[[Path], set[Path]]):
    encoder = Encoder(folder, device="numpy")
    encoder.encode("a text", truncate=True)
    assert opened(folder) <= {*encoder.checkpoint.files_read}


@pytest.mark.parametrize("name", ["gpt2_sharded", "bert_9_heads_sharded_f16"])
def test_files_read_of_shards(name: str):
    folder = GOLDEN / "models" / name
    assert {path.name for path in folder.iterdir()} - {"expected.npz"} == set(names(folder))
