"""The chapters that run kernels: they end without an adapter, too, and say so; and a wrong kernel fails where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import REPOSITORY

from gpt2wgpu.gpu import Device

LEARN = REPOSITORY / "docs" / "learn"
CHAPTER = "08_from_numpy_to_wgsl.py"
NO_DRIVER = dict.fromkeys(("VK_DRIVER_FILES", "VK_ICD_FILENAMES"), "none")


def run_text(text: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a chapter's text as its file is run."""
    paths = os.pathsep.join(filter(None, (str(LEARN), str(REPOSITORY), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-W", "error", "-c", text]
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Vulkan's drivers can be hidden")
@pytest.mark.parametrize("chapter", [CHAPTER, "12_exercises_with_kernels.py"])
def test_without_an_adapter(chapter: str, tmp_path: Path):
    done = run_text((LEARN / chapter).read_text(encoding="utf-8"), tmp_path, NO_DRIVER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no kernel runs here" in done.stdout and "no WebGPU adapter found" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("= sum / f32(end - start);", "= sum / f32(end);"),
        ("= sums[thread] / f32(end - start);", "= sums[thread] / f32(end);"),
        ("sums[thread + half * COLUMNS];", "sums[thread + half];"),
    ],
)
def test_a_wrong_kernel_fails(right: str, wrong: str, tmp_path: Path, device: Device):
    text = (LEARN / CHAPTER).read_text(encoding="utf-8")
    assert text.count(right) == 1
    done = run_text(text.replace(right, wrong), tmp_path, {})
    assert done.returncode == 1 and "AssertionError" in done.stderr
