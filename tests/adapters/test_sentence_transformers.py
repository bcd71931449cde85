"""The calls of tests/compare_sentence_transformers.py against the real package."""

import warnings
from collections import Counter
from pathlib import Path

from compare_sentence_transformers import compare
from encoders import GOLDEN

REFUSED = (  # what cannot be done, or means nothing here
    "(pairs of texts)",
    "prompt_name='query'",
    "half()",
    "trust_remote_code=True",
    "model_kwargs={'attn_implementation'",
    "config_kwargs={'num_hidden_layers'",
)


def test_calls_do_the_same_or_say_what_to_use(monkeypatch, capfd):
    with warnings.catch_warnings(action="ignore"):
        found = compare(GOLDEN / "sentence_models" / "old_bert_mean")
    wrong = [(name, said) for name, verdict, said in found if verdict == "different"]
    assert wrong == []
    refused = [(name, said) for name, verdict, said in found if verdict == "refused"]
    assert [name for name, said in refused if not any(part in name for part in REFUSED) or "\n" in said] == []
    counts = Counter(verdict for _, verdict, _ in found)
    assert counts["same"] >= 311 and counts["same"] + counts["neither"] >= 360 and len(found) >= 375
    assert all("generator" in name for name, verdict, _ in found if verdict == "more")


def test_a_saved_folder_is_read_there(tmp_path: Path):
    """Pooling, prompts and lengths as they were changed here."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from gpt2wgpu import Encoder

    for name in ("plain_bert", "old_mpnet_mean", "new_gpt2_weighted"):
        for pooling in ("cls", "max", "last", "weighted_mean", "sqrt_len_mean"):
            ours = Encoder(GOLDEN / "sentence_models" / name, device="cpu", pooling=pooling, prompts={"query": "a: "})
            ours.max_seq_length = 9
            ours.save(tmp_path / name / pooling)
            theirs = SentenceTransformer(str(tmp_path / name / pooling), device="cpu")
            texts = ["the cat sleeps", "a dog " * 20]
            with warnings.catch_warnings(action="ignore"):
                np.testing.assert_allclose(ours.encode_query(texts), theirs.encode_query(texts), atol=1e-5)


def test_tensors_of_every_kind_are_vectors():
    import numpy as np
    import torch

    from gpt2wgpu import cosine_similarity, quantize_embeddings
    from gpt2wgpu.vectors.convert import to_array

    vectors = np.array([[1, 0, 2], [0, -3, 4]], np.float32)
    tensor = torch.tensor(vectors)
    for given in (tensor.bfloat16(), tensor.double(), tensor.half(), tensor.to_sparse(), tensor.requires_grad_(), [*tensor]):
        np.testing.assert_array_equal(to_array(given), vectors)
        np.testing.assert_array_equal(quantize_embeddings(given, "ubinary"), quantize_embeddings(vectors, "ubinary"))
    assert abs(cosine_similarity(tensor[0].bfloat16(), tensor[1]) - 8 / 5 / np.sqrt(5)) < 1e-6


def test_a_folder_in_int8_is_refused_there_and_read_in_float16(tmp_path: Path):
    """It must not take the integers for weights. What `save_pretrained` writes from the folder gives the same vectors."""
    import numpy as np
    import pytest
    import transformers
    from sentence_transformers import SentenceTransformer

    from gpt2wgpu import Encoder

    texts = ["the cat sleeps", "a river of words"]
    for name in ("old_bert_mean", "new_gpt2_weighted"):
        small, half = tmp_path / name / "small", tmp_path / name / "half"
        small.parent.mkdir()
        Encoder(GOLDEN / "sentence_models" / name, device="numpy").save_pretrained(small, dtype="int8")
        opened = Encoder(small, device="numpy")
        body = opened.checkpoint.folder
        opened.save_pretrained(half)
        with warnings.catch_warnings(action="ignore"):
            for open_folder in (
                lambda small=small: SentenceTransformer(str(small), device="cpu"),
                lambda body=body: transformers.AutoModel.from_pretrained(body),
            ):
                with pytest.raises(ValueError, match="has no `quant_method`"):
                    open_folder()
            theirs = SentenceTransformer(str(half), device="cpu").encode(texts)
        np.testing.assert_allclose(opened.encode(texts), theirs, rtol=0, atol=2e-3 * np.abs(theirs).max())


def test_a_fitted_repair_is_applied_there(tmp_path: Path):
    """centre, standardise, whiten and remove_top are one Dense module of the saved folder."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from gpt2wgpu import Encoder

    texts = [f"{a} {b}" for a in ("cat", "dog", "rain", "sun") for b in ("is", "on", "up", "it", "in")]
    for name in ("plain_bert", "old_mpnet_mean", "new_gpt2_weighted"):
        for i, steps in enumerate(("centre", "standardise", "whiten:5", "remove_top:2", "remove_top:1,standardise")):
            ours = Encoder(GOLDEN / "sentence_models" / name, device="numpy").with_postprocessing(steps, texts)
            folder = tmp_path / f"{name}-{i}"
            ours.save_pretrained(folder)
            theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
            found = ours.encode(texts)
            assert theirs.shape == found.shape
            assert np.allclose(theirs, found, atol=1e-4 * np.abs(found).max()), (name, steps)
