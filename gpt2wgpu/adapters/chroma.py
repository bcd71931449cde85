"""Chroma: `client.create_collection("texts", embedding_function=Gpt2WgpuEmbeddingFunction())`.

Importing this file tells Chroma the name "gpt2wgpu", under which it finds the function of a stored collection again.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

try:
    from chromadb.api.types import Documents, EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise ImportError("Chroma is not installed: pip install chromadb") from error

from ..graph.tensor import Array
from . import EncoderAdapter


@register_embedding_function
class Gpt2WgpuEmbeddingFunction(EncoderAdapter, EmbeddingFunction[Documents]):
    """Documents and queries -> vectors for Chroma. Options: those of all adapters; they are stored with the collection.

    Queries and documents get the prompts that the model has for them.
    """

    def __call__(self, input: Documents) -> list[Array]:
        """The vector of each document, float32 (C,)."""
        return [*self._encoder().encode_document(input, normalize_embeddings=self.normalize)]

    def embed_query(self, input: Documents) -> list[Array]:
        """The vector of each query, float32 (C,)."""
        return [*self._encoder().encode_query(input, normalize_embeddings=self.normalize)]

    @staticmethod
    def name() -> str:
        """What a stored collection calls it."""
        return "gpt2wgpu"

    def default_space(self) -> str:
        """The distance of a collection that does not choose one."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What a stored collection keeps of it: texts, numbers, None."""
        model = str(self.model) if isinstance(self.model, Path) else self.model
        options = {"device": self.device, "dtype": self.dtype, "revision": self.revision, "normalize": self.normalize}
        return {"model": model, **options}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "Gpt2WgpuEmbeddingFunction":
        """The function of a stored collection."""
        return _build(**config)


@lru_cache(maxsize=4)
def _build(**options: Any) -> Gpt2WgpuEmbeddingFunction:
    """Chroma asks for the function of a stored collection at every query; with the function its loaded model is kept."""
    return Gpt2WgpuEmbeddingFunction(**options)
