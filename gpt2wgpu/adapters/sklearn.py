"""scikit-learn: `make_pipeline(Gpt2WgpuVectorizer(), LogisticRegression())`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install scikit-learn") from error

from ..errors import UserError
from ..graph.tensor import Array
from ..inputs import list_texts
from . import EncoderAdapter


class Gpt2WgpuVectorizer(EncoderAdapter, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """n texts -> float32 (n, C), for pipelines. Options: those of all adapters, and prompt_name, one of the model's prompts.

    There is nothing to fit. Texts may also come as a table of one column, as a ColumnTransformer gives it where the column is
    named in a list.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        normalize: bool = False,
        prompt_name: str | None = None,
    ) -> None:
        super().__init__(model, device=device, dtype=dtype, revision=revision, normalize=normalize)
        self.prompt_name = prompt_name

    def fit(self, X: Iterable[str], y: Any = None) -> "Gpt2WgpuVectorizer":
        """Does nothing."""
        return self

    def transform(self, X: Iterable[str]) -> Array:
        """The vectors of texts, float32 (n, C). Raises UserError for a single text or a table of several columns."""
        shape: tuple[int, ...] = getattr(X, "shape", ())
        if len(shape) == 2 and shape[1] == 1:
            X = np.asarray(X)[:, 0]
        elif len(shape) > 1:
            raise UserError(f"X must be a list or a column of texts, not a table of shape {shape}")
        return self._encoder().encode(list_texts(X, "transform"), self.prompt_name, normalize_embeddings=self.normalize)

    @property
    def _n_features_out(self) -> int:
        return self._encoder().dimensions

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit = False
        return tags
