"""sentence-transformers: `BERTopic(embedding_model=as_sentence_transformer(Encoder()))`.

Some libraries ask whether they are given a SentenceTransformer, and take a model of their own for anything else (BERTopic,
KeyBERT), or want its whole class (SetFit). An Encoder as the one module of a SentenceTransformer is one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError("sentence-transformers is not installed: pip install 'sentence-transformers>=6'") from error

from ..encoder import Encoder
from ..errors import UserError


class EncoderModule(InputModule):
    """An Encoder as a module that turns texts into vectors. It has no weights in torch, so there is nothing to train."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read; what is longer is cut."""
        return self.encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self.encoder.max_seq_length = tokens

    def get_embedding_dimension(self) -> int:
        """Length of a vector before SentenceTransformer cuts it."""
        return self.encoder.width

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """The texts unchanged: the Encoder has its own tokenizer."""
        return {"texts": [*inputs], "prompt": prompt or ""}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds the vectors of the texts, float32 (n, C)."""
        encoder = self.encoder
        vectors = encoder.encode(features["texts"], prompt=features["prompt"], truncate_dim=encoder.width)
        return {**features, "sentence_embedding": torch.from_numpy(np.ascontiguousarray(vectors))}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Raises UserError: save the Encoder itself instead."""
        raise UserError("an Encoder inside a SentenceTransformer is not saved by it: use Encoder.save_pretrained(folder)")


def as_sentence_transformer(encoder: Encoder) -> SentenceTransformer:
    """A SentenceTransformer that computes with this Encoder: `encode` and everything built on it, with the same prompts,
    similarity and truncate_dim. `encode` hands over batch_size texts at a time; larger ones are faster here (256, say).

    Token embeddings and training are SentenceTransformer's own business and not available.
    """
    return SentenceTransformer(
        modules=[EncoderModule(encoder)],
        device="cpu",
        prompts=encoder.prompts,
        default_prompt_name=encoder.default_prompt_name,
        similarity_fn_name=encoder.similarity_fn_name,
        truncate_dim=encoder.truncate_dim,
    )
