"""The adapters without their frameworks. (With them: adapters/.)"""

import pickle
import subprocess
import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path

import pytest
from encoders import tiny_gpt2
from process import environment

from gpt2wgpu.adapters import EncoderAdapter

FRAMEWORKS = {
    "langchain": ("langchain_core", "pip install langchain-core"),
    "llama_index": ("llama_index", "pip install llama-index-core"),
    "chroma": ("chromadb", "pip install chromadb"),
    "sklearn": ("sklearn", "pip install scikit-learn"),
    "llm": ("llm", "pip install llm"),
    "ray": ("ray", 'pip install "ray[data]"'),
    "mteb": ("mteb", "pip install 'mteb>=2'"),
    "sentence_transformers": ("sentence_transformers", "pip install 'sentence-transformers>=6'"),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch):
    package, install = FRAMEWORKS[name]
    for module in [m for m in sys.modules if m == package or m.startswith((f"{package}.", f"gpt2wgpu.adapters.{name}"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as caught:
        import_module(f"gpt2wgpu.adapters.{name}")
    assert str(caught.value).endswith(f" is not installed: {install}")


def test_no_framework_is_imported_unasked():
    code = "import sys, gpt2wgpu.adapters; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True, text=True).stdout
    unwanted = {package for package, _ in FRAMEWORKS.values()} | {"numpy", "wgpu"}
    assert unwanted.isdisjoint(loaded.split())
    assert "gpt2wgpu" in loaded.split()


def test_a_model_is_loaded_once_for_the_same_options_and_left_behind_by_copies(tmp_path: Path):
    adapter = EncoderAdapter(tiny_gpt2(tmp_path / "a"), device="numpy")
    first = adapter._encoder()
    assert adapter._encoder() is first
    for copy in (deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert copy.model == adapter.model
        assert copy._encoder() is not first
    adapter.model = tiny_gpt2(tmp_path / "b", layers=2)
    assert adapter._encoder().layers == 2
