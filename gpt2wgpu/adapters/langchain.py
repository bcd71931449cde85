"""LangChain: `InMemoryVectorStore(Gpt2WgpuEmbeddings())`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError("LangChain is not installed: pip install langchain-core") from error

from ..errors import UserError
from ..inputs import list_texts
from . import EncoderAdapter

if TYPE_CHECKING:
    from ..encoder import Encoder


class Gpt2WgpuEmbeddings(EncoderAdapter, Embeddings):
    """Texts -> vectors for LangChain's vector stores and retrievers. Options: those of all adapters.

    Queries and documents get the prompts that the model has for them. The keywords of LangChain's HuggingFaceEmbeddings are
    accepted too: model_name for model; model_kwargs for further keywords of Encoder; encode_kwargs, and query_encode_kwargs
    for queries, for keywords of `Encoder.encode`; cache_folder and show_progress.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        normalize: bool = False,
        model_name: str | Path | None = None,
        cache_folder: str | Path | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
        query_encode_kwargs: Mapping[str, Any] | None = None,
        show_progress: bool = False,
    ) -> None:
        if model is not None and model_name is not None:
            raise UserError("model and model_name are the same: give one of the two")
        super().__init__(
            model_name if model is None else model, device=device, dtype=dtype, revision=revision, normalize=normalize
        )
        self.cache_folder = cache_folder
        self.model_kwargs = dict(model_kwargs or {})
        self.encode_kwargs = dict(encode_kwargs or {})
        self.query_encode_kwargs = dict(self.encode_kwargs if query_encode_kwargs is None else query_encode_kwargs)
        self.show_progress = show_progress

    def _encoder(self) -> "Encoder":
        options = {"device": self.device, "dtype": self.dtype, "revision": self.revision, "cache_folder": self.cache_folder}
        return self._lazy(model=self.model, **(options | self.model_kwargs))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of C floats for each text."""
        options = {"normalize_embeddings": self.normalize, "show_progress_bar": self.show_progress, **self.encode_kwargs}
        return self._encoder().encode_document(list_texts(texts, "embed_documents"), **options).tolist()

    def embed_query(self, text: str) -> list[float]:
        """C floats."""
        if not isinstance(text, str):
            raise UserError(f"embed_query takes one text, not a {type(text).__name__}: use embed_documents for several")
        options = {"normalize_embeddings": self.normalize, **self.query_encode_kwargs}
        return self._encoder().encode_query(text, **options).tolist()
