"""mteb."""

import warnings
from pathlib import Path

import mteb
import numpy as np
import pytest
from encoders import refusal
from mteb.models.models_protocols import EncoderProtocol
from mteb.types import PromptType

from gpt2wgpu import Encoder
from gpt2wgpu.adapters.mteb import Gpt2WgpuModel

BATCHES = [{"text": ["t3", "t4 t5"]}, {"text": ["t6"]}]
TEXTS = ["t3", "t4 t5", "t6"]


@pytest.fixture(autouse=True)
def others_may_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_vectors_are_the_encoders(folder: Path, encoder: Encoder):
    model = Gpt2WgpuModel(folder, device="numpy")
    assert isinstance(model, EncoderProtocol)
    asked = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "batch_size": 32}
    np.testing.assert_array_equal(model.encode(BATCHES, **asked), encoder.encode(TEXTS, batch_size=32))
    for kind, call in ((PromptType.query, encoder.encode_query), (PromptType.document, encoder.encode_document)):
        np.testing.assert_array_equal(model.encode(BATCHES, prompt_type=kind, **asked), call(TEXTS, batch_size=32))
    found = model.encode(BATCHES, precision="binary")
    np.testing.assert_array_equal(found, encoder.encode(TEXTS, precision="binary"))
    assert found.dtype == np.int8
    v = encoder.encode(TEXTS)
    np.testing.assert_array_equal(model.similarity(v, v), encoder.similarity(v, v))
    np.testing.assert_array_equal(model.similarity_pairwise(v, v), encoder.similarity_pairwise(v, v))
    assert "image" in refusal(lambda: model.encode([{"image": [1]}]))


def test_the_models_card(folder: Path, encoder: Encoder):
    meta = Gpt2WgpuModel(encoder).mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.max_tokens) == (f"gpt2wgpu/{folder.name}", 8, encoder.max_seq_length)
    assert Gpt2WgpuModel(Encoder(device="numpy")).mteb_model_meta.name == "gpt2wgpu/built-in"


def test_a_task(tmp_path: Path):
    """A classification task of mteb's own, on texts that it is given."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    cats = ["the cat sleeps", "a kitten naps", "cats purr", "a cat chases a mouse", "the kitten drinks milk"] * 4
    loans = ["loans cost more", "interest rates rose", "the bank lends", "mortgages are dear", "credit is tight"] * 4

    class CatsAndLoans(AbsTaskClassification):
        metadata = TaskMetadata(
            name="CatsAndLoans",
            dataset={"path": "none/none", "revision": "1"},
            description="Cats or loans.",
            type="Classification",
            category="t2c",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
        )
        n_experiments, samples_per_label = 2, 4

        def load_data(self, *_: object, **__: object) -> None:
            rows = Dataset.from_dict({"text": cats + loans, "label": [0] * 20 + [1] * 20})
            self.dataset = DatasetDict({"train": rows, "test": rows})
            self.data_loaded = True

    result = mteb.evaluate(Gpt2WgpuModel(device="numpy"), CatsAndLoans(), cache=None, co2_tracker=False)
    assert result.task_results[0].get_score() > 0.9
