"""Resuming corpora: what must be the same as before, and what may have changed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import contents, embed, interrupted, make_texts, read_output, stop_early, tiny_model, write_texts
from encoders import refusal, tiny_gpt2

from gpt2wgpu import Encoder, UserError, corpus
from gpt2wgpu.corpus import job, journal

pytestmark = pytest.mark.usefixtures("small_corpora")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_model(tmp_path_factory.mktemp("model")), device="numpy", max_tokens=64)


@pytest.fixture
def stopped(encoder: Encoder, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A source and an output of which six texts of eight are done. What is refused changes nothing."""
    source, output = stop_early(encoder, tmp_path)
    before = contents(tmp_path)
    yield source, output
    assert Path(output).exists() or {k: v for k, v in contents(tmp_path).items() if k in before} == before


def test_what_must_be_as_it_was(encoder: Encoder, stopped: tuple[Path, str], tmp_path: Path):
    source, output = stopped
    assert "o.npy.part holds 6 texts: continue with --resume, or delete it" in refusal(lambda: embed(encoder, source, output))

    def message(model: Encoder = encoder, **options: object) -> str:
        return refusal(lambda: embed(model, source, output, resume=True, **options))

    assert "--normalize is True now and was False" in message(normalize_embeddings=True)
    assert "precision is 'int8' now" in message(precision="int8")
    assert "prompt is 't1 ' now and was ''" in message(prompt="t1 ")
    assert "--no-truncate is False now and was True" in message(truncate=False)
    folder = encoder.checkpoint.path
    assert "layer is 0 now and was 1" in message(Encoder(folder, device="numpy", layer=0))
    assert "pooling is 'max' now and was 'mean'" in message(Encoder(folder, device="numpy", pooling="max"))
    assert "dtype is 'int8' now and was 'float32'" in message(Encoder(folder, device="numpy", dtype="int8"))
    assert "max_seq_length is 5 now" in message(Encoder(folder, device="numpy", max_seq_length=5))
    assert "dimensions is 4 now and was 8" in message(Encoder(folder, device="numpy", truncate_dim=4))
    other = tiny_gpt2(tmp_path / "other", change={"h.0.mlp.c_fc.bias": lambda a: a + np.float32(1e-6)})
    assert "this is another model" in message(Encoder(other, device="numpy"))
    shutil.rmtree(tmp_path / "other")


def test_the_texts_done_must_be_the_same(encoder: Encoder, stopped: tuple[Path, str]):
    source, output = stopped
    texts = make_texts(8)
    for changed in (
        ["t1 t1", *texts[1:]],
        texts[1:],
        texts[:5],
        ["", *texts],
        [*texts[:5], "t9"],
        [texts[0] + texts[1], *texts[2:]],
    ):
        write_texts(source, changed)
        assert "the first 6 texts differ from those" in refusal(lambda: embed(encoder, source, output, resume=True))
    write_texts(source, texts)


def test_texts_that_are_not_done_may_change(encoder: Encoder, stopped: tuple[Path, str]):
    """A broken line is corrected, lines are added: the output is that of the input as it is now."""
    source, output = stopped
    texts = [*make_texts(8)[:6], "t1 t2", "t3", "t4 t5"]
    write_texts(source, texts)
    report = embed(encoder, source, output, resume=True)
    assert "resuming after 6 texts" in report.said[0] and "finished texts are the same in both" in report.said[1]
    np.testing.assert_allclose(np.load(output), encoder.encode(texts), atol=1e-5)


def test_texts_may_be_added_when_all_were_done(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last window was a short one."""
    texts = make_texts(9)
    source = write_texts(tmp_path / "a.txt", texts[:8])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job.Job, "finish", interrupted)
        embed(encoder, source, f"{tmp_path}/o.npy")
    embed(encoder, write_texts(source, texts), f"{tmp_path}/o.npy", resume=True)
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), encoder.encode(texts), atol=1e-5)


def test_texts_may_be_added_and_the_work_be_stopped_again(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The short window that was the last one stays where it is, and is not looked for elsewhere."""
    texts = make_texts(20)
    source = tmp_path / "a.txt"
    for n in (8, 13, 14):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(job.Job, "finish", interrupted)
            embed(encoder, write_texts(source, texts[:n]), f"{tmp_path}/o.jsonl", resume=n > 8)
    embed(encoder, write_texts(source, texts), f"{tmp_path}/o.jsonl", resume=True)
    found, vectors = read_output(tmp_path / "o.jsonl")
    assert found == texts
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)


@pytest.mark.parametrize("output", ["o.npy", "o.jsonl", "o.parquet"])
@pytest.mark.parametrize("last", ["advance", "remove"])
def test_texts_are_added_to_an_output_that_has_its_name(
    encoder: Encoder, tmp_path: Path, output: str, last: str, monkeypatch: pytest.MonkeyPatch
):
    """A process that ended before it could remove the journal had finished: there is nothing to resume."""
    texts = make_texts(12)
    source = write_texts(tmp_path / "a.txt", texts[:8])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*((journal.Journal, "advance") if last == "advance" else (corpus.journal, "remove_journal")), interrupted)
        embed(encoder, source, f"{tmp_path}/{output}")
    before = (tmp_path / output).read_bytes()
    if not (unnoted := last == "advance" and output != "o.npy"):
        with corpus.open_workspace(f"{tmp_path}/{output}", resume=True) as work:
            assert work.complete
        assert (tmp_path / output).read_bytes() == before
    embed(encoder, write_texts(source, texts), f"{tmp_path}/{output}", resume=unnoted)
    np.testing.assert_allclose(read_output(tmp_path / output)[1], encoder.encode(texts), atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", output]


def test_cut_texts_are_counted_over_all_runs(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = "t1 " * 40
    source = write_texts(tmp_path / "a.txt", ["t1", long, "t2", long, "t3"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job.Job, "finish", interrupted)
        embed(encoder, source, f"{tmp_path}/o.npy")
    with pytest.warns(UserWarning, match="2 of 5 texts had more than 32 tokens"):
        embed(encoder, source, f"{tmp_path}/o.npy", resume=True)
    with pytest.raises(UserError, match="text 1 has at least 40 tokens"):
        embed(encoder, source, f"{tmp_path}/p.npy", truncate=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "o.npy"]


def test_the_same_texts_from_another_file(encoder: Encoder, stopped: tuple[Path, str]):
    source, output = stopped
    lines = [json.dumps({"text": text}) + "\n" for text in make_texts(8)]
    source.with_name("a.jsonl").write_text("".join(lines))
    embed(encoder, source.with_name("a.jsonl"), output, resume=True)
    np.testing.assert_allclose(np.load(output), encoder.encode(make_texts(8)), atol=1e-5)
