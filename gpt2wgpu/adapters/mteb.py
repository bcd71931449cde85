"""mteb: `mteb.evaluate(Gpt2WgpuModel("all-MiniLM-L6-v2"), tasks)`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

try:
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ImportError as error:
    raise ImportError("mteb is not installed: pip install 'mteb>=2'") from error

from ..encoder import Encoder
from ..errors import UserError
from ..graph.tensor import Array


class Gpt2WgpuModel:
    """A model in the sense of mteb's encoder protocol. Queries and documents get the prompts that the model has for them.

    model: as of Encoder, or an Encoder. revision, device, dtype: Encoder's.
    """

    def __init__(
        self,
        model: str | Path | Encoder | None = None,
        revision: str | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
    ) -> None:
        opened = model if isinstance(model, Encoder) else Encoder(model, revision=revision, device=device, dtype=dtype)
        self.encoder = opened
        self.revision = revision

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **options: Any) -> Array:
        """Vectors, float32 (n, C), of batches {"text": [...]}. Raises UserError for batches without texts.

        task_metadata, hf_split and hf_subset, which mteb passes too, change nothing.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise UserError(f"this model reads texts, the task gives {', '.join(batch)}: choose a text task")
            texts += batch["text"]
        passed = {name: options[name] for name in ("batch_size", "show_progress_bar", "precision") if name in options}
        kind = getattr(prompt_type, "value", prompt_type)
        by_kind = {"query": self.encoder.encode_query, "document": self.encoder.encode_document}
        return by_kind.get(kind, self.encoder.encode)(texts, **passed)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Array:
        """All pairs, float32 (n, m)."""
        return self.encoder.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Array:
        """Row by row, float32 (n,)."""
        return self.encoder.similarity_pairwise(embeddings1, embeddings2)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The facts that mteb writes into its results."""
        name = self.encoder.model
        known = {
            "name": name if name.count("/") == 1 else f"gpt2wgpu/{Path(name).name}",  # mteb wants org/name
            "revision": self.revision,
            "n_parameters": self.encoder.checkpoint.parameters,
            "max_tokens": self.encoder.max_seq_length,
            "embed_dim": self.encoder.dimensions,
            "similarity_fn_name": ScoringFunction(self.encoder.similarity_fn_name),
            "framework": ["NumPy", "safetensors"],
        }
        return ModelMeta.create_empty(known)
