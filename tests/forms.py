"""The two forms of a kernel, a GPU's and that of a driver on a CPU, which takes seconds to compile a matmul."""

from collections.abc import Mapping
from typing import Any

from gpt2wgpu.graph.tensor import Op


def has_rare_activation(op: Op, attrs: Mapping[str, Any]) -> bool:
    """Whether a matmul is tried in a GPU's form alone. Every activation is the same function in all forms: two will do."""
    return op.name.startswith("linear") and attrs.get("activation", "none") not in ("none", "gelu_erf")
