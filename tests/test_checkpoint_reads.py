"""Which files of a model folder are read, files that change while in use, pipes and devices, and absurd contents."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from encoders import tiny_gpt2
from refusals import refusal
from vocabularies import WORDS, bert_folder

from gpt2wgpu import Encoder, UserError
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
    decide_tokens = [
        *("added_tokens.json", "encoder.json", "merges.txt", "sentencepiece.bpe.model", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.bpe", "vocab.json", "vocab.txt"),
    ]
    for name in decide_tokens:
        (tmp_path / name).write_text("{}")
    assert names(tmp_path) == sorted(["config.json", "model.safetensors", *decide_tokens])


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
    for name in ("jinja", "json"):
        (tmp_path / f"body/chat_template.{name}").write_text("")
    assert names(tmp_path) == [
        "3_Normalize/config.json",
        "body/chat_template.jinja",
        "body/chat_template.json",
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


# --- files that change while they are in use


@pytest.mark.parametrize("how", ["cut", "written over"])
def test_weights_that_change_while_numpy_computes_with_them(tmp_path: Path, how: str):
    """Without the check, the first would kill the process and the second would change the model."""
    encoder = Encoder(tiny_gpt2(tmp_path / "m"), device="numpy")
    before = encoder.encode("t1")
    file = tmp_path / "m" / "model.safetensors"
    content = file.read_bytes()
    stamp = file.stat()
    with file.open("r+b") as opened:
        if how == "cut":
            opened.truncate(len(content) // 2)
        else:
            opened.write(content[:-8] + b"\0" * 8)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))  # the clock of some file systems is coarse
    with pytest.raises(UserError, match=r"model\.safetensors changed while it was in use: load the model again"):
        encoder.encode("t1")
    file.write_bytes(content)
    assert np.array_equal(Encoder(tmp_path / "m", device="numpy").encode("t1"), before)


@pytest.mark.parametrize("when", ["between two batches", "during a batch"])
def test_weights_that_change_within_a_call(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch):
    encoder = Encoder(tiny_gpt2(tmp_path / "m"), device="numpy")
    submit, batches = encoder.engine.program.submit, []

    def submit_and_change(batch: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        batches.append(batch)
        found = submit(batch)()
        if when == "between two batches":
            os.utime(tmp_path / "m/model.safetensors", ns=(0, 0))
            return lambda: found
        return lambda: (found, os.utime(tmp_path / "m/model.safetensors", ns=(0, 0)))[0]

    monkeypatch.setattr(encoder.engine.program, "submit", submit_and_change)
    texts = ["t1", "t2"] if when == "between two batches" else "t1"
    with pytest.raises(UserError, match=r"model\.safetensors changed while it was in use"):
        encoder.encode(texts, batch_size=1)
    assert len(batches) == 1


def test_weights_of_a_module_that_change_while_numpy_computes_with_them(tmp_path: Path):
    config = tiny.bert_config(vocab_size=len(WORDS))
    folder = bert_folder(tiny.sentence_model(tmp_path, config, "Pooling", "LayerNorm"))
    tiny.save_layer_norm(folder / "2_LayerNorm", 8)
    encoder = Encoder(folder, device="numpy")
    encoder.encode("hello")
    os.truncate(folder / "2_LayerNorm" / "model.safetensors", 8)
    with pytest.raises(UserError, match=r"2_LayerNorm.*model\.safetensors changed while it was in use"):
        encoder.encode("hello")


def test_weights_that_are_replaced_or_deleted_stay_as_they_were(tmp_path: Path):
    encoder = Encoder(tiny_gpt2(tmp_path / "m"), device="numpy")
    before = encoder.encode("t1")
    file = tmp_path / "m" / "model.safetensors"
    (tmp_path / "new").write_bytes(file.read_bytes()[:1000])
    (tmp_path / "new").replace(file)
    assert np.array_equal(encoder.encode("t1"), before)
    file.unlink()
    assert np.array_equal(encoder.encode("t1"), before)


# --- what is not a file


def test_pipes_and_links_in_place_of_files(tmp_path: Path):
    folder = tiny.save(tmp_path, tiny.gpt2_config())
    for name in ("config.json", "model.safetensors"):
        path = folder / name
        kept = path.rename(folder / "kept")
        os.mkfifo(path)
        refusal(folder, name, "cannot be read", "not a regular file")
        path.unlink()
        path.symlink_to(folder / "nowhere")
        refusal(folder, name, "is missing")
        path.unlink()
        path.symlink_to(path)
        refusal(folder, name, "cannot be read: Too many levels of symbolic links")
        path.unlink()
        path.symlink_to(kept)  # as the cache of the hub has them
        assert load_checkpoint(folder).parameters
        path.unlink()
        kept.rename(path)


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json", "tokenizer_config.json", "adapter_config.json"])
def test_broken_links_of_files_that_may_be_absent(tmp_path: Path, name: str):
    folder = tiny.sentence_model(tmp_path)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder / "nowhere")
    refusal(folder, "adapter" if name.startswith("adapter") else f"{name} is missing")


def test_large_and_deep_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tiny.save(tmp_path, tiny.gpt2_config())
    (folder / "config.json").write_text('{"a": ' + "[" * 974 + "]" * 974 + "}")
    refusal(folder, "config.json", "deep")  # in other words where Python's own limit is nearer
    (folder / "config.json").write_text('{"a": ' + '{"b": ' * 150 + "1" + "}" * 151)
    refusal(folder, "config.json", "nests objects and lists more than 100 deep")
    monkeypatch.setattr("gpt2wgpu.models.fields.LARGEST_FILE", 100)
    (folder / "config.json").write_text(" " * 101)
    refusal(folder, "config.json has 101 bytes, expected at most 100")


def test_a_path_of_5000_letters(tmp_path: Path):
    message = refusal(tmp_path / ("a" * 5000), "cannot be opened: File name too long")
    assert len(message) < 500
    refusal(Path("a\0b"), "'a\\x00b' cannot be opened: embedded null byte")
    tiny.sentence_model(tmp_path)
    entries = json.loads((tmp_path / "modules.json").read_text())
    tiny.write_json(tmp_path / "modules.json", [entries[0], {**entries[1], "path": "b" * 5000}])
    refusal(tmp_path, "modules.json", "path is 'bbb", "a folder inside the model folder")


NUMBERS = ["1" + "0" * 400, "1" + "0" * 3999, str(1 << 40), "1e999", "-1e999", "NaN", "1e-400"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("config.json", name) for name in ("n_embd", "n_head", "n_layer", "n_positions", "vocab_size", "layer_norm_epsilon")),
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("1_Pooling/config.json", "word_embedding_dimension"),
        ("config_sentence_transformers.json", "truncate_dim"),
    ],
)
def test_absurd_numbers_are_refused_in_one_line_or_bounded(tmp_path: Path, file: str, name: str, number: str):
    folder = tiny.sentence_model(tmp_path, tiny.gpt2_config())
    values = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({**values, name: "NUMBER"}).replace('"NUMBER"', number))
    if name == "model_max_length" and number[0] == "1" and "-" not in number:
        assert load_checkpoint(folder).max_seq_length == 7  # as large as what stands for "no limit"
    elif name == "layer_norm_epsilon" and number == str(1 << 40):
        assert load_checkpoint(folder).config.eps == float(number)
    else:
        assert len(refusal(folder, file, name)) < 400
