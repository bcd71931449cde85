"""An index is kept by content, brought up to date by what is new, and goes on where it was stopped."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from encoders import refusal
from searching import Quiet, passages_of, tiny_encoder, update, vectors_by_text, write_folder

from gpt2wgpu import Encoder
from gpt2wgpu.search import update as updating
from gpt2wgpu.search.exchange import export_index
from gpt2wgpu.search.reader import check_index, open_index
from gpt2wgpu.search.store import INDEX_PARTS
from gpt2wgpu.search.update import update_index

FILES = {f"{i}.txt": "\n\n".join(f"t{(i * j) % 15 + 1} t{j + 1} " * 12 for j in range(1, 6)) for i in range(1, 8)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "PASSAGES_TOGETHER", 4)
    monkeypatch.setattr(updating, "SAVED_SECONDS", 0)


@pytest.fixture
def encoded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passages that are encoded from here on."""
    seen: list[str] = []
    original = encoder.encode_windows

    def windows(texts, asked, **options):
        def noted():
            for window in texts:
                seen.extend(window)
                yield window

        return original(noted(), asked, **options)

    monkeypatch.setattr(encoder, "encode_windows", windows)
    return seen


def test_only_new_contents_are_computed(encoder: Encoder, encoded: list[str], tmp_path: Path):
    folder = write_folder(tmp_path / "f", FILES)
    first = update(encoder, tmp_path / "index", folder)
    assert len(encoded) == len(passages_of(first)) > 20
    encoded.clear()
    assert passages_of(update(encoder, tmp_path / "index", folder)) == passages_of(first) and not encoded
    write_folder(folder, {"new.txt": "t3 t4", "copy.txt": FILES["3.txt"]})
    (folder / "5.txt").rename(folder / "moved.txt")
    (folder / "6.txt").unlink()
    (folder / "7.txt").touch()
    found = update(encoder, tmp_path / "index", folder)
    assert encoded == ["t3 t4"]
    assert passages_of(found) == passages_of(update(encoder, tmp_path / "fresh", folder))
    check_index(found)
    assert passages_of(first) != passages_of(found)  # an open reader sees what it opened
    copies = [row for row in np.flatnonzero(found.allowed()).tolist() if len(found.files_of(row)) == 2]
    assert {Path(p).name for p in found.files_of(copies[0])} == {"3.txt", "copy.txt"}


def test_vectors_are_those_of_encode_document(encoder: Encoder, tmp_path: Path):
    index = update(encoder, tmp_path / "index", write_folder(tmp_path / "f", FILES))
    for text, vector in vectors_by_text(index).items():
        np.testing.assert_allclose(vector, encoder.encode_document(text, normalize_embeddings=True), atol=1e-6)


def test_other_folders_stay_and_are_searched_on_their_own(encoder: Encoder, tmp_path: Path):
    a, b = write_folder(tmp_path / "a", {"x.txt": "t1 t2"}), write_folder(tmp_path / "ab", {"y.txt": "t3"})
    update(encoder, tmp_path / "index", a)
    index = update(encoder, tmp_path / "index", b)
    assert [p[0] for p in passages_of(index)] == ["x.txt", "y.txt"]
    assert index.allowed([str(a)]).tolist() == [True, False] and index.allowed([str(b / "y.txt")]).tolist() == [False, True]
    shutil.rmtree(a)
    a.mkdir()
    assert [p[0] for p in passages_of(update(encoder, tmp_path / "index", a))] == ["y.txt"]


def test_what_cannot_be_searched_is_remembered_and_read_again_when_it_changes(encoder: Encoder, tmp_path: Path):
    folder = write_folder(tmp_path / "f", {"a.txt": "t1", "b.txt": b"caf\xe9"})
    index = update(encoder, tmp_path / "index", folder)
    assert {Path(p).name: f.why for p, f in index.catalogue.files.items()} == {"a.txt": "", "b.txt": "not UTF-8"}
    with pytest.raises(ValueError, match=r"b\.txt: not UTF-8"):
        update(encoder, tmp_path / "index", folder / "b.txt")
    write_folder(folder, {"b.txt": "t2"})
    assert len(passages_of(update(encoder, tmp_path / "index", folder))) == 2


def test_dead_passages_are_removed_in_the_end(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(updating, "DEAD_ROWS", 5)
    folder = write_folder(tmp_path / "f", FILES | {"bad.txt": b"\xff"})
    before = update(encoder, tmp_path / "index", folder)
    for name in ("1.txt", "2.txt", "4.txt", "5.txt", "6.txt"):
        (folder / name).unlink()
    after = update(encoder, tmp_path / "index", folder)
    assert after.state.generation == 1 and after.state.rows == len(passages_of(after)) < before.state.rows
    check_index(after)
    assert passages_of(after) == passages_of(update(encoder, tmp_path / "fresh", folder))
    kept = vectors_by_text(before)
    assert all(np.array_equal(kept[text], vector) for text, vector in vectors_by_text(after).items())
    assert passages_of(update(encoder, tmp_path / "index", folder)) == passages_of(after)
    assert not [*(tmp_path / "index").glob("*.0.*")]


def test_a_content_goes_on_where_it_was_stopped(encoder: Encoder, encoded: list[str], tmp_path: Path):
    folder = write_folder(tmp_path / "f", {"long.txt": "\n\n".join(f"t{i % 15 + 1} " * 20 for i in range(30))})

    class Stop(Quiet):
        def step(self, passages: int, files: int, of: int) -> None:
            if passages >= 12:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(encoder, tmp_path / "index", [str(folder)], Stop())
    stopped = open_index(tmp_path / "index")
    assert stopped.state.rows == 12 and not stopped.allowed().any()
    encoded.clear()
    found = update(encoder, tmp_path / "index", folder)
    assert len(encoded) == 18 and found.state.rows == 30
    assert passages_of(found) == passages_of(update(encoder, tmp_path / "fresh", folder))


def test_two_at_once_wait_for_each_other(encoder: Encoder, tmp_path: Path):
    """Threads here; the lock is one between processes, which treats two open files alike."""
    folder = write_folder(tmp_path / "f", FILES)
    reports = [Quiet() for _ in range(3)]
    run = [threading.Thread(target=update_index, args=(encoder, tmp_path / "index", [str(folder)], r)) for r in reports]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    found = open_index(tmp_path / "index")
    assert found.state.rows == len(passages_of(found)) == len(passages_of(update(encoder, tmp_path / "fresh", folder)))
    check_index(found)


def test_another_model_or_prompt_is_refused(encoder: Encoder, tmp_path: Path):
    folder, index = write_folder(tmp_path / "f", {"a.txt": "t1"}), tmp_path / "index"
    update(encoder, index, folder)
    other = Encoder(encoder.checkpoint.path, device="numpy", prompts={"document": "t5 "})
    assert refusal(lambda: update(other, index, folder)) == (
        "the index was made with prompt '', and this is 't5 ': use the same, or another --index FOLDER"
    )
    path = tmp_path / "other"
    shutil.copytree(encoder.checkpoint.path, path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert refusal(lambda: update(Encoder(path, device="numpy"), index, folder)).startswith(
        "the index was made with another model, or with other files of this one"
    )


@pytest.mark.parametrize("part", INDEX_PARTS)
def test_a_flipped_bit_is_noticed(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str):
    folder, index = write_folder(tmp_path / "f", FILES), tmp_path / "index"
    path = update(encoder, index, folder).state.path(index, part)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 128
    path.write_bytes(data)
    said = f"{path} is damaged, its checksum is wrong: delete the index to make it anew"
    if part == "log":  # compared whenever it is read
        assert refusal(lambda: open_index(index)) == refusal(lambda: update(encoder, index, folder)) == said
        return
    damaged = update(encoder, index, folder)  # a search would not notice
    assert refusal(lambda: check_index(damaged)) == refusal(lambda: export_index(damaged, tmp_path / "x.parquet", "m")) == said
    if part == "texts":
        assert refusal(lambda: [damaged.text(row) for row in range(damaged.state.rows)]) == said
    monkeypatch.setattr(updating, "DEAD_ROWS", 5)
    for name in ("1.txt", "2.txt", "4.txt", "5.txt", "6.txt"):
        (folder / name).unlink()
    assert refusal(lambda: update(encoder, index, folder)) == said  # a copy would have a right checksum


def test_damage_and_foreign_folders_are_refused(encoder: Encoder, tmp_path: Path):
    folder, index = write_folder(tmp_path / "f", FILES), tmp_path / "index"
    found = update(encoder, index, folder)
    vectors = index / "vectors.0.f32"
    data = vectors.read_bytes()
    vectors.write_bytes(data[:-5])
    assert refusal(lambda: open_index(index)).startswith(f"{vectors} is damaged, it has {len(data) - 5:,} bytes")
    assert refusal(lambda: update(encoder, index, folder)).startswith(f"{vectors} is damaged")
    vectors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert refusal(lambda: check_index(found)) == (
        f"{vectors} is damaged, its checksum is wrong: delete the index to make it anew"
    )
    vectors.write_bytes(data + b"torn")  # written by a process that ended
    check_index(update(encoder, index, folder))
    state = index / "state.json"
    state.write_text(state.read_text().replace('"rows": ', '"rows": 1'))
    assert refusal(lambda: open_index(index)) == f"{state} is damaged: delete the index to make it anew"
    assert "is no index: give a new folder" in refusal(lambda: update(encoder, folder, folder))
    assert refusal(lambda: open_index(folder / "1.txt")) == f"{folder / '1.txt'}: is not a folder, and an index is one"
    assert "there is no index: make it with" in refusal(lambda: open_index(tmp_path / "none"))
    assert refusal(lambda: update(encoder, tmp_path / "x" / "y", folder)).endswith(f"there is no folder {tmp_path / 'x'}")
