"""benchmarks/on_a_gpu.py survives whatever a driver does to one of its steps, and its table can be made of any result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STEP = """
import json, os, signal, sys, time
name = sys.argv[1]
print(json.dumps({"op": "first row of " + name, "ok": name != "kernels"}), flush=True)
print("what a driver prints", flush=True)
if name == "tiles":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "families":
    time.sleep(3600)
if name == "invariance":
    raise RuntimeError("a message of the step")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, int]:
    """The JSON, the output and the exit code of a run whose steps crash, hang and fail."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "step.py").write_text(STEP, encoding="utf-8")
    names = ("machine", "kernels", "tiles", "families", "invariance", "ceilings")
    steps = [(str(folder / "step.py"), name, 0.001 if name == "families" else 0.5, 0) for name in names]
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import on_a_gpu; on_a_gpu.STEPS = {steps!r}; "
    code += "on_a_gpu.ENDED = 5.0; on_a_gpu.peers = lambda *_: []; on_a_gpu.main()"
    command = [sys.executable, "-c", code, "--device", "gpu", "--output", str(folder / "gpu.json"), "--seconds", "200"]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads((folder / "gpu.json").read_text(encoding="utf-8")), done.stdout + done.stderr, done.returncode


def test_every_step_runs_whatever_happened_to_the_one_before(found: tuple[dict, str, int]):
    result, said, _ = found
    assert [name.partition(",")[0] for name in result["steps"]][:6] == [
        "machine",
        "kernels",
        "tiles",
        "families",
        "invariance",
        "ceilings",
    ], said
    assert all(len(rows) == 1 for name, rows in result["steps"].items() if name != "peers")


def test_a_crash_a_hang_and_an_error_are_recorded(found: tuple[dict, str, int]):
    failed = {f["step"].partition(",")[0]: f["why"] for f in found[0]["failed"]}
    assert set(failed) == {"tiles", "families", "invariance"}
    assert "code -11" in failed["tiles"] and "no answer" in failed["families"] and "a message of the step" in failed["invariance"]


def test_what_is_wrong_sets_the_exit_code(found: tuple[dict, str, int]):
    result, said, code = found
    assert code == 1 and [row["step"].partition(",")[0] for row in result["wrong"]] == ["kernels"]
    assert "WRONG:" in said and "FAILED:" in said
