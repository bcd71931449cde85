"""LlamaIndex: `VectorStoreIndex.from_documents(documents, embed_model=Gpt2WgpuEmbedding())`."""

from asyncio import to_thread
from typing import TYPE_CHECKING, Any

try:
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator
    from llama_index.core.embeddings import BaseEmbedding
except ImportError as error:
    raise ImportError("LlamaIndex is not installed: pip install llama-index-core") from error

from ..inputs import list_texts
from . import LazyEncoder

if TYPE_CHECKING:
    from ..encoder import Encoder


class Gpt2WgpuEmbedding(BaseEmbedding):
    """Texts -> vectors for LlamaIndex. Options: those of all adapters; `model` is also LlamaIndex's own `model_name`.

    Queries and texts get the prompts that the model has for queries and documents. Raises pydantic's ValidationError for an
    option that there is not.
    """

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    model_name: str = Field(default="built-in", alias="model", description="A folder or the name of a model on the hub.")
    device: str | int | None = "auto"
    dtype: str = "auto"
    revision: str | None = None
    normalize: bool = False
    embed_batch_size: int = Field(default=1024, gt=0, le=2048, description="Texts that are handed over at a time.")
    _lazy: LazyEncoder = PrivateAttr(default_factory=LazyEncoder)

    @field_validator("model_name", mode="before")
    @classmethod
    def _as_text(cls, model: Any) -> str:
        return "built-in" if model is None else str(model)

    @classmethod
    def class_name(cls) -> str:
        """Its name in serialised pipelines."""
        return "Gpt2WgpuEmbedding"

    def _encoder(self) -> "Encoder":
        return self._lazy(model=self.model_name, device=self.device, dtype=self.dtype, revision=self.revision)

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **options: Any) -> list[list[float]]:
        """One vector of C floats for each text. Raises UserError for a single text, which LlamaIndex would split into letters."""
        return super().get_text_embedding_batch(list_texts(texts, "get_text_embedding_batch"), show_progress, **options)

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **options: Any) -> list[list[float]]:
        """As `get_text_embedding_batch`."""
        checked = list_texts(texts, "aget_text_embedding_batch")
        return await super().aget_text_embedding_batch(checked, show_progress, **options)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoder().encode_query(query, normalize_embeddings=self.normalize).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encoder().encode_document(text, normalize_embeddings=self.normalize).tolist()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder().encode_document(texts, normalize_embeddings=self.normalize).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await to_thread(self._get_text_embeddings, texts)
