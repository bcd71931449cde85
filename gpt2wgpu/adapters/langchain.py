"""LangChain: `InMemoryVectorStore(Gpt2WgpuEmbeddings())`."""

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError("LangChain is not installed: pip install langchain-core") from error

from . import EncoderAdapter


class Gpt2WgpuEmbeddings(EncoderAdapter, Embeddings):
    """Texts -> vectors for LangChain's vector stores and retrievers. Options: those of all adapters.

    Queries and documents get the prompts that the model has for them.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of C floats for each text."""
        return self._encoder().encode_document(texts, normalize_embeddings=self.normalize).tolist()

    def embed_query(self, text: str) -> list[float]:
        """C floats."""
        return self._encoder().encode_query(text, normalize_embeddings=self.normalize).tolist()
