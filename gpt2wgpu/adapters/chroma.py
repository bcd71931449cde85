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

from ..errors import UserError, show
from ..graph.tensor import Array
from ..inputs import list_texts
from . import EncoderAdapter

STORED = {  # what a collection stores of the function, with the allowed types
    "model": (str, type(None)),
    "device": (str, int, type(None)),
    "dtype": (str,),
    "revision": (str, type(None)),
    "normalize": (bool,),
}
SAME_VECTORS = ("model", "revision", "normalize")  # fixed in a collection: others would give incomparable vectors


@register_embedding_function
class Gpt2WgpuEmbeddingFunction(EncoderAdapter, EmbeddingFunction[Documents]):
    """Documents and queries -> vectors for Chroma. Options: those of all adapters; they are stored with the collection.

    Queries and documents get the prompts that the model has for them. A model's folder is stored by its absolute path.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        normalize: bool = False,
    ) -> None:
        folder = None if model is None else Path(model)
        found = str(folder.absolute()) if folder is not None and folder.is_dir() else model
        super().__init__(found, device=device, dtype=dtype, revision=revision, normalize=normalize)

    def __call__(self, input: Documents) -> list[Array]:
        """The vector of each document, float32 (C,)."""
        return [*self._encoder().encode_document(list_texts(input, "Chroma"), normalize_embeddings=self.normalize)]

    def embed_query(self, input: Documents) -> list[Array]:
        """The vector of each query, float32 (C,)."""
        return [*self._encoder().encode_query(list_texts(input, "Chroma"), normalize_embeddings=self.normalize)]

    @staticmethod
    def name() -> str:
        """Its name in stored collections."""
        return "gpt2wgpu"

    def default_space(self) -> str:
        """The distance of a collection that does not choose one."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """The configuration that a collection stores: texts, numbers, None."""
        model = str(self.model) if isinstance(self.model, Path) else self.model
        options = {"device": self.device, "dtype": self.dtype, "revision": self.revision, "normalize": self.normalize}
        return {"model": model, **options}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "Gpt2WgpuEmbeddingFunction":
        """The function of a stored collection. Raises UserError for a configuration that this version cannot read."""
        Gpt2WgpuEmbeddingFunction.validate_config(config)
        return _build(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raises UserError for an unknown key, or a value of another type."""
        for name, value in config.items():
            if name not in STORED:
                known = ", ".join(STORED)
                raise UserError(
                    f"the collection's gpt2wgpu function has an option {show(name)}, known are {known}: update gpt2wgpu"
                )
            if not isinstance(value, STORED[name]) or (isinstance(value, bool) and bool not in STORED[name]):
                raise UserError(f"the collection's gpt2wgpu function has {name}={show(value)}: expected another type")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raises UserError for a change that would make new vectors incomparable with the stored ones."""
        for name in SAME_VECTORS:
            old, new = old_config.get(name), new_config.get(name)
            if old != new:
                raise UserError(f"the collection's vectors were made with {name}={old!r}, not {new!r}: make a new collection")


@lru_cache(maxsize=4)
def _build(**options: Any) -> Gpt2WgpuEmbeddingFunction:
    """Chroma rebuilds the function of a stored collection for every query; keeping the function keeps its model loaded."""
    return Gpt2WgpuEmbeddingFunction(**options)
