"""Text embeddings on any GPU through WebGPU.

from gpt2wgpu import Encoder
vectors = Encoder().encode(["The cat is sleeping", "A feline is resting"])  # float32 (2, C)
"""

import typing as _typing

__version__ = "0.1.0"
__all__ = [
    "Encoder",
    "UserError",
    "cluster_texts",
    "community_detection",
    "cos_sim",
    "cosine_similarity",
    "cross_validate",
    "dot_product",
    "dot_score",
    "euclidean_distance",
    "find_duplicates",
    "load_classifier",
    "manhattan_distance",
    "map_texts",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pearson_correlation",
    "quantize_embeddings",
    "save_classifier",
    "save_map",
    "semantic_search",
    "train_classifier",
]

_HOMES = {"Encoder": "encoder", "UserError": "errors", "quantize_embeddings": "vectors.quantize"}  # else vectors.measures
_HOMES |= dict.fromkeys(("cos_sim", "dot_score", "semantic_search"), "vectors.retrieval")
_HOMES |= dict.fromkeys(("paraphrase_mining", "paraphrase_mining_embeddings", "community_detection"), "vectors.mining")
_HOMES |= {
    "cluster_texts": "analyze.clusters",
    "cross_validate": "analyze.classify",
    "find_duplicates": "analyze.duplicates",
    "load_classifier": "analyze.classifier_file",
    "map_texts": "analyze.maps",
    "save_classifier": "analyze.classifier_file",
    "save_map": "analyze.map_files",
    "train_classifier": "analyze.classify",
}

if _typing.TYPE_CHECKING:
    from .analyze.classifier_file import load_classifier, save_classifier
    from .analyze.classify import cross_validate, train_classifier
    from .analyze.clusters import cluster_texts
    from .analyze.duplicates import find_duplicates
    from .analyze.map_files import save_map
    from .analyze.maps import map_texts
    from .encoder import Encoder
    from .errors import UserError
    from .vectors.measures import cosine_similarity, dot_product, euclidean_distance, manhattan_distance, pearson_correlation
    from .vectors.mining import community_detection, paraphrase_mining, paraphrase_mining_embeddings
    from .vectors.quantize import quantize_embeddings
    from .vectors.retrieval import cos_sim, dot_score, semantic_search


def __getattr__(name: str) -> object:
    """Import on first use, so that `import gpt2wgpu` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES.get(name, 'vectors.measures')}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
