"""scikit-learn."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from encoders import refusal
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from gpt2wgpu import Encoder
from gpt2wgpu.adapters.sklearn import Gpt2WgpuVectorizer

TEXTS = ["t3 t4", "t5", "", "t6 t7 t8"]


def test_vectors_are_the_encoders(folder: Path, encoder: Encoder):
    for options in ({}, {"normalize_embeddings": True}, {"prompt_name": "query"}):
        names = {"normalize_embeddings": "normalize"}
        vectorizer = Gpt2WgpuVectorizer(folder, **{names.get(k, k): v for k, v in options.items()})
        expected = encoder.encode(TEXTS, **options)
        for texts in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), pd.Series(TEXTS), iter(TEXTS)):
            np.testing.assert_array_equal(vectorizer.transform(texts), expected)  # there is nothing to fit
        np.testing.assert_array_equal(vectorizer.fit_transform(TEXTS), expected)
    assert vectorizer.fit([]).transform([]).shape == (0, 8)


def test_columns_have_names(folder: Path, encoder: Encoder):
    frame = Gpt2WgpuVectorizer(folder).set_output(transform="pandas").fit_transform(pd.Series(TEXTS, index=[4, 5, 6, 7]))
    assert list(frame.columns) == [f"gpt2wgpuvectorizer{i}" for i in range(8)]
    assert list(frame.index) == [4, 5, 6, 7]
    np.testing.assert_array_equal(frame.to_numpy(), encoder.encode(TEXTS))
    table = pd.DataFrame({"text": TEXTS, "length": [2.0, 1.0, 0.0, 3.0]})
    columns = make_column_transformer((Gpt2WgpuVectorizer(folder), "text"), ("passthrough", ["length"]))
    assert columns.fit_transform(table).shape == (4, 9)
    listed = make_column_transformer((Gpt2WgpuVectorizer(folder), ["text"]), ("passthrough", ["length"]))
    np.testing.assert_array_equal(listed.fit_transform(table), columns.fit_transform(table))


def test_a_pipeline_is_cloned_tuned_and_stored(folder: Path):
    pipeline = make_pipeline(Gpt2WgpuVectorizer(folder), LogisticRegression())
    texts, labels = [f"t3 t{i}" for i in range(4, 8)] + [f"t9 t9 t{i}" for i in range(4, 8)], [0] * 4 + [1] * 4
    search = GridSearchCV(pipeline, {"gpt2wgpuvectorizer__normalize": [False, True]}, cv=2).fit(texts, labels)
    assert search.best_score_ == 1
    stored = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(stored.predict_proba(texts), search.predict_proba(texts))


def test_options_are_kept_and_may_change(folder: Path, encoder: Encoder):
    vectorizer = Gpt2WgpuVectorizer(folder, device="numpy", normalize=True)
    vectorizer.transform(TEXTS)
    assert vectorizer.get_params()["model"] is folder
    assert clone(vectorizer).get_params() == vectorizer.get_params()
    assert vectorizer.set_params(model=None, normalize=False).transform(["t3"]).shape == (1, 384)
    np.testing.assert_array_equal(vectorizer.set_params(model=folder).transform(TEXTS), encoder.encode(TEXTS))
    tags = get_tags(vectorizer)
    assert (tags.input_tags.string, tags.input_tags.two_d_array, tags.requires_fit) == (True, False, False)


def test_errors_are_clear(folder: Path):
    vectorizer = Gpt2WgpuVectorizer(folder)
    assert "takes several texts, not one" in refusal(lambda: vectorizer.transform("t3"))
    assert "a table of shape (4, 2)" in refusal(lambda: vectorizer.transform(pd.DataFrame({"a": TEXTS, "b": TEXTS})))
    assert "text 1" in refusal(lambda: vectorizer.transform(["t3", None]))
    assert "prompt_name 'other'" in refusal(lambda: Gpt2WgpuVectorizer(folder, prompt_name="other").fit_transform(TEXTS))
