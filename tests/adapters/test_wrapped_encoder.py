"""An Encoder inside a real SentenceTransformer, and the libraries that want one."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from encoders import refusal
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from gpt2wgpu import Encoder
from gpt2wgpu.adapters.sentence_transformers import as_sentence_transformer

CATS = ["the cat sleeps", "a kitten naps", "cats purr and sleep", "a cat chases a mouse", "the kitten drinks milk"]
LOANS = ["loans cost more", "interest rates rose", "the bank lends money", "mortgages are expensive", "credit is tight"]
TEXTS = CATS + LOANS


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(device="numpy")


@pytest.fixture
def model(encoder: Encoder) -> SentenceTransformer:
    return as_sentence_transformer(encoder)


@pytest.fixture(autouse=True)
def others_may_warn():
    """These libraries, and what they import, warn of their own affairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_vectors_are_the_encoders(model: SentenceTransformer, encoder: Encoder, folder: Path):
    expected = encoder.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS[0]), expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True).shape, (10, 7))
    np.testing.assert_allclose(model.similarity(expected, expected), encoder.similarity(expected, expected), atol=1e-6)
    assert (model.get_embedding_dimension(), model.max_seq_length) == (384, 512)
    prompted = Encoder(folder, device="numpy")
    wrapped = as_sentence_transformer(prompted)
    np.testing.assert_allclose(wrapped.encode_query(["t3"]), prompted.encode_query(["t3"]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(wrapped.encode_document(["t3"]), prompted.encode_document(["t3"]), rtol=0, atol=1e-6)
    assert not np.allclose(wrapped.encode(["t3"]), wrapped.encode_query(["t3"]))


def test_what_it_cannot_do_is_said(model: SentenceTransformer, tmp_path: Path):
    assert "save_pretrained" in refusal(lambda: model.save(str(tmp_path)))


def test_evaluators(model: SentenceTransformer):
    evaluator = EmbeddingSimilarityEvaluator([CATS[0], CATS[1], CATS[2]], [CATS[1], LOANS[1], LOANS[2]], [1.0, 0.0, 0.1])
    assert evaluator(model)["spearman_cosine"] > 0.4


def test_bertopic(model: SentenceTransformer, encoder: Encoder):
    """Given an Encoder itself, BERTopic would take a model of its own."""
    from bertopic import BERTopic
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    steps = {"umap_model": PCA(2, random_state=0), "hdbscan_model": KMeans(2, n_init=4, random_state=0)}
    topics, _ = BERTopic(embedding_model=model, **steps).fit_transform(TEXTS)
    assert len(set(topics[:5])) == len(set(topics[5:])) == 1
    assert topics[0] != topics[-1]
    assert BERTopic(embedding_model=model, **steps).fit(TEXTS, encoder.encode(TEXTS)).embedding_model.embedding_model is model


def test_keybert(model: SentenceTransformer):
    from keybert import KeyBERT

    words = [word for word, _ in KeyBERT(model=model).extract_keywords("the cat sleeps on the sofa while the bank lends money")]
    assert "cat" in words


def test_setfit(model: SentenceTransformer):
    from setfit import SetFitModel
    from sklearn.linear_model import LogisticRegression

    classifier = SetFitModel(model_body=model, model_head=LogisticRegression())
    classifier.model_head.fit(model.encode(TEXTS), [0] * 5 + [1] * 5)
    assert list(classifier.predict(["a kitten sleeps", "the bank raised its rates"])) == [0, 1]
