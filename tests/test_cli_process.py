"""The command as a process: its start, its stdout, a full disk, and signals that tell it to stop."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from process import command, environment

A, B = "The cat is sleeping", "A feline is resting"


def test_a_real_process():
    args = command("similarity", "--sentence1", "Das Kätzchen schläft", "--sentence2", B)
    done = subprocess.run(args, env=environment(), capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == b""
    assert re.search("Kätzchen.*\n.*\n\nCosine similarity: -?0\\.[0-9]{4} ", done.stdout.decode())  # UTF-8 whatever the locale


def test_help_waits_for_neither_numpy_nor_wgpu():
    code = "import sys, gpt2wgpu.cli; print([m for m in ('numpy', 'wgpu', 'tokenizers', 'safetensors') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_a_reader_that_leaves_early(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\n" * 300)
    args = command("embed", "-i", tmp_path / "a.txt", "--layer", "0")
    process = subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1) == b"["
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk():
    with Path("/dev/full").open("wb") as full:
        for args in (("embed", A), ("similarity", "--sentence1", A, "--sentence2", B), ("models",), ("--help",)):
            done = subprocess.run(command(*args), env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=120)
            assert done.returncode == 1 and done.stderr == b"error: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_a_disk_that_fills_up(tmp_path: Path, suffix: str):
    """A limit on the size of files is met like a full disk: by an OSError from a write, or only from the closing of the file."""
    (tmp_path / "a.txt").write_text("text\n" * 300)
    target = tmp_path / f"v{suffix}"
    args = ["embed", "-i", str(tmp_path / "a.txt"), "-o", str(target), "--layer", "0"]
    code = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (100_000,) * 2); from gpt2wgpu.cli import main; main({args!r})"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr == f"error: {target}: File too large\n"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on addresses")
def test_weights_larger_than_all_addresses(tmp_path: Path):
    """They are mapped, so that they need addresses before they need memory. The file is a hole: it takes no room on the disk."""
    size = 1 << 34
    header = json.dumps({"wte.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    tiny.save(tmp_path / "model", tiny.gpt2_config())
    with (tmp_path / "model" / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    code = f"import resource as r; r.setrlimit(r.RLIMIT_AS, ({size},) * 2); from gpt2wgpu.cli import main; "
    code += f"main(['embed', 'a', '--device', 'numpy', '--model', {str(tmp_path / 'model')!r}])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*model\.safetensors is larger than all the memory .* \(see ulimit -v\)\n", done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal it could answer")
def test_a_process_that_is_told_to_stop_cleans_up(tmp_path: Path):
    args = command("embed", "-i", "-", "-o", tmp_path / "v.npy")
    process = subprocess.Popen(args, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"a text\n" * 2000)
        process.stdin.flush()
        until = time.monotonic() + 60
        while not [*tmp_path.iterdir()]:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr.read() == b""
    assert [*tmp_path.iterdir()] == []
