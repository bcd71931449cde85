"""Ray Data, on a cluster of this machine alone."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from encoders import refusal
from process import ROOT, environment

from gpt2wgpu import Encoder
from gpt2wgpu.adapters import ray as adapter
from gpt2wgpu.adapters.ray import Gpt2WgpuEmbedder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # of its own defaults
TEXTS = ["t3 t4", "t5", "", "t6 t7 t8"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("GPT2WGPU_DEVICE", "numpy")
        patch.setenv("PYTHONPATH", str(ROOT))
        before = signal.getsignal(signal.SIGTERM)  # Ray puts a handler of its own there
        ray.init(num_cpus=2, resources={"wgpu": 2}, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def test_a_batch_is_not_written_into(folder: Path, encoder: Encoder):
    texts = np.array(TEXTS, object)
    texts.flags.writeable = False
    batch = {"id": np.arange(4), "title": texts}
    for options in ({}, {"prompt_name": "document"}):
        found = Gpt2WgpuEmbedder(folder, column="title", output="vector", **options)(batch)
        assert list(batch) == ["id", "title"]
        assert list(found) == ["id", "title", "vector"]
        assert found["title"] is texts
        np.testing.assert_array_equal(found["vector"], encoder.encode(TEXTS, **options))
    scaled = Gpt2WgpuEmbedder(folder, column="title", normalize=True)(batch)["embedding"]
    np.testing.assert_array_equal(scaled, encoder.encode(TEXTS, normalize_embeddings=True))
    assert Gpt2WgpuEmbedder(folder)({"text": texts[:0]})["embedding"].shape == (0, 8)


def test_a_batch_of_arrow(folder: Path, encoder: Encoder):
    table = pa.table({"id": range(4), "text": TEXTS})
    found = Gpt2WgpuEmbedder(folder)(table)
    assert found.drop_columns(["embedding"]) == table
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    np.testing.assert_array_equal(np.stack(found["embedding"].to_numpy()), encoder.encode(TEXTS))
    assert Gpt2WgpuEmbedder(folder)(table[:0]).num_rows == 0
    assert "'embedding' already" in refusal(lambda: Gpt2WgpuEmbedder(folder)(found))


def test_two_workers(folder: Path, encoder: Encoder, cluster: None):
    texts = [f"t{i % 16} t{i // 16}" for i in range(64)]
    rows = ray.data.from_items([{"text": t} for t in texts], override_num_blocks=4)
    options: dict[str, Any] = {"batch_size": 16, "compute": ray.data.ActorPoolStrategy(size=2)}
    options |= {"resources": {"wgpu": 1}, "num_cpus": 0}
    found = rows.map_batches(Gpt2WgpuEmbedder, fn_constructor_kwargs={"model": folder}, **options).take_all()
    assert sorted(row["text"] for row in found) == sorted(texts)
    for start in range(0, 64, 16):
        batch = encoder.encode(texts[start : start + 16])
        for text, vector in zip(texts[start : start + 16], batch, strict=True):
            row = next(row for row in found if row["text"] == text)
            assert row["embedding"].dtype == np.float32
            np.testing.assert_array_equal(row["embedding"], vector)


def test_errors_name_what_is_wrong(folder: Path, cluster: None):
    rows = ray.data.from_items([{"title": "t3"}])
    with pytest.raises(Exception, match="there is no column 'text', only title"):
        rows.map_batches(Gpt2WgpuEmbedder, fn_constructor_kwargs={"model": folder}).take_all()
    assert "no-such-folder" in refusal(lambda: Gpt2WgpuEmbedder("./no-such-folder"))


class Listed(NamedTuple):
    index: int
    backend: str = "Vulkan"
    software: bool = False


def test_each_worker_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Two GPUs, of which one is listed a second time by another backend, and a software adapter."""
    gpus = (Listed(0, software=True), Listed(1), Listed(2), Listed(3, "DX12"))
    monkeypatch.delenv("GPT2WGPU_DEVICE")
    monkeypatch.setattr(adapter, "has_gpu_node", lambda: True)
    monkeypatch.setattr(adapter.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("gpt2wgpu.gpu.list_adapters", lambda: gpus)
    monkeypatch.setattr("gpt2wgpu.gpu.choose_adapter", lambda wanted: gpus[2])
    (first, lock), (second, _held) = adapter.own_gpu(), adapter.own_gpu()
    assert (first, second) == (2, 1)  # the best one first
    assert "2 GPUs, and each has a worker already" in refusal(adapter.own_gpu)
    assert lock is not None
    lock.release()  # as when its process ends
    assert adapter.own_gpu()[0] == 2
    monkeypatch.setattr("gpt2wgpu.gpu.choose_adapter", lambda wanted: None)
    assert adapter.own_gpu() == ("auto", None)


def test_a_lock_is_free_when_its_process_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hold = "import sys, filelock; l = filelock.FileLock(sys.argv[1]); l.acquire(); print('held', flush=True); input()"
    path = tmp_path / "gpt2wgpu-0.lock"
    process = subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.delenv("GPT2WGPU_DEVICE")
        monkeypatch.setattr(adapter, "has_gpu_node", lambda: True)
        monkeypatch.setattr(adapter.tempfile, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr("gpt2wgpu.gpu.list_adapters", lambda: (Listed(0),))
        monkeypatch.setattr("gpt2wgpu.gpu.choose_adapter", lambda wanted: Listed(0))
        assert "1 GPUs" in refusal(adapter.own_gpu)
        process.kill()
        process.wait()
        assert adapter.own_gpu()[0] == 0


def test_the_example_embeds_a_parquet_data_set(folder: Path, encoder: Encoder, cluster: None, tmp_path: Path):
    texts = [f"t{i % 16} t{i // 16}" for i in range(48)]
    (tmp_path / "corpus").mkdir()
    for i in range(3):
        part = pa.table({"id": range(16 * i, 16 * i + 16), "body": texts[16 * i : 16 * i + 16]})
        pq.write_table(part, tmp_path / "corpus" / f"{i}.parquet")
    script = Path(__file__).parents[2] / "benchmarks" / "ray_corpus.py"
    command = [sys.executable, script, tmp_path / "corpus", tmp_path / "vectors"]
    command += ["--model", folder, "--column", "body", "--batch-size", "16"]
    command += ["--address", ray.get_runtime_context().gcs_address]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "48 texts" in done.stdout
    found = pq.read_table(tmp_path / "vectors").sort_by("id")
    assert found.column("body").to_pylist() == texts
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    vectors = np.stack(found.column("embedding").to_pylist()).astype(np.float32)
    np.testing.assert_array_equal(vectors, np.concatenate([encoder.encode(texts[i : i + 16]) for i in (0, 16, 32)]))
