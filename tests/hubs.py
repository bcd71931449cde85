"""Models that the tests' hub serves, and where they come to lie."""

import hashlib
from pathlib import Path

import tiny
from encoders import add_tokenizer


def sentence_model(folder: Path) -> Path:
    """A BERT with a Dense and a Normalize, as sentence-transformers has them."""
    tiny.sentence_model(folder, tiny.bert_config(), "Pooling", "Dense", "Normalize")
    tiny.save_dense(folder / "2_Dense", 8, 4)
    tiny.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 5})
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "t1 "}})
    return add_tokenizer(folder, 13)


def cache(tmp_path: Path, name: str = "gpt2") -> Path:
    return tmp_path / "hf" / "hub" / f"models--{name.replace('/', '--')}"


def weights_of(folder: Path) -> tuple[bytes, str]:
    content = (folder / "model.safetensors").read_bytes()
    return content, hashlib.sha256(content).hexdigest()
