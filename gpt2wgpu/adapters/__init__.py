"""An Encoder behind the interfaces of other frameworks, one small file each; only that file imports the framework.

langchain.py              Gpt2WgpuEmbeddings          a LangChain `Embeddings`
llama_index.py            Gpt2WgpuEmbedding           a LlamaIndex `BaseEmbedding`
chroma.py                 Gpt2WgpuEmbeddingFunction   a Chroma `EmbeddingFunction`
sklearn.py                Gpt2WgpuVectorizer          a scikit-learn transformer
llm.py                    Gpt2WgpuEmbeddingModel      a plugin of the command `llm`
ray.py                    Gpt2WgpuEmbedder            a callable class for Ray Data's `map_batches`
sentence_transformers.py  as_sentence_transformer     a real SentenceTransformer, for BERTopic, KeyBERT and SetFit
mteb.py                   Gpt2WgpuModel               a model for mteb's benchmarks

The options of the first six are model, device, dtype and revision, which are Encoder's, and normalize, which makes vectors of
length 1. Their model is loaded on first use, or when Ray's workers start. Errors are Encoder's.
"""

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..encoder import Encoder


class LazyEncoder:
    """Opens an Encoder on first use, keeps it, and opens another when it is called with other options.

    Copies and pickles leave the Encoder out, so the owner can be cloned, stored and sent to another process.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._options: dict[str, Any] = {}
        self._encoder: Encoder | None = None

    def __call__(self, **options: Any) -> "Encoder":
        from ..encoder import Encoder

        with self._lock:
            if self._encoder is None or options != self._options:
                if self._encoder is not None:
                    self._encoder.close()  # the device may not have room for two
                self._encoder = None
                self._encoder, self._options = Encoder(**options), options
            return self._encoder

    def __reduce__(self) -> tuple[type["LazyEncoder"], tuple[()]]:
        return LazyEncoder, ()


class EncoderAdapter:
    """The common options of the adapters, stored unchanged, and the Encoder that they describe."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        normalize: bool = False,
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.revision = revision
        self.normalize = normalize

    @cached_property
    def _lazy(self) -> LazyEncoder:
        return LazyEncoder()

    def _encoder(self) -> "Encoder":
        return self._lazy(model=self.model, device=self.device, dtype=self.dtype, revision=self.revision)

    def __repr__(self) -> str:
        options = {"device": self.device, "dtype": self.dtype, "revision": self.revision, "normalize": self.normalize}
        return f"{type(self).__name__}({self.model!r}, {', '.join(f'{name}={value!r}' for name, value in options.items())})"
