"""Text embeddings on any GPU through WebGPU.

from gpt2wgpu import Encoder
vectors = Encoder().encode(["The cat is sleeping", "A feline is resting"])  # float32 (2, C)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "encoder",
    "UserError": "errors",
    "cosine_similarity": "vectors.measures",
    "dot_product": "vectors.measures",
    "euclidean_distance": "vectors.measures",
    "manhattan_distance": "vectors.measures",
    "pearson_correlation": "vectors.measures",
    "quantize_embeddings": "vectors.quantize",
}

if TYPE_CHECKING:
    from .encoder import Encoder as Encoder
    from .errors import UserError as UserError
    from .vectors.measures import cosine_similarity as cosine_similarity
    from .vectors.measures import dot_product as dot_product
    from .vectors.measures import euclidean_distance as euclidean_distance
    from .vectors.measures import manhattan_distance as manhattan_distance
    from .vectors.measures import pearson_correlation as pearson_correlation
    from .vectors.quantize import quantize_embeddings as quantize_embeddings


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import gpt2wgpu` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
