"""Text embeddings on any GPU through WebGPU.

from gpt2wgpu import Encoder
vectors = Encoder().encode(["The cat is sleeping", "A feline is resting"])  # float32 (2, C)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "encoder",
    "UserError": "errors",
    "cosine_similarity": "similarity",
    "dot_product": "similarity",
    "euclidean_distance": "similarity",
    "manhattan_distance": "similarity",
    "pearson_correlation": "similarity",
    "quantize_embeddings": "quantize",
}

if TYPE_CHECKING:
    from .encoder import Encoder as Encoder
    from .errors import UserError as UserError
    from .quantize import quantize_embeddings as quantize_embeddings
    from .similarity import cosine_similarity as cosine_similarity
    from .similarity import dot_product as dot_product
    from .similarity import euclidean_distance as euclidean_distance
    from .similarity import manhattan_distance as manhattan_distance
    from .similarity import pearson_correlation as pearson_correlation


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import gpt2wgpu` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
