"""Which files of a repository a model needs. Each file may name others, so they are requested one by one."""

from collections.abc import Callable, Collection
from pathlib import Path

from ..checkpoint.modules import read_modules
from ..checkpoint.settings import LENGTH_FILES
from ..checkpoint.tensors import PICKLES, read_index
from ..models.fields import read_fields
from .cache import NotCached

Get = Callable[[str], Path | None]  # a file's path, None if the repository has no such file
VOCABULARIES = ("vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt")


def list_model_files(name: str, get: Get, others: Collection[str] = ()) -> Path:
    """Ask `get` for every file that is needed, and return the path of the transformer's config.json. Weights are not read.

    others: the names of all files of the repository, if known, so that an error can say what is there instead.
    Raises UserError if a required file is missing or a module is unsupported.
    """

    def need(file: str) -> Path:
        if (path := get(file)) is None:
            raise NotCached(f"{name} has no {file}: it is not a model in Hugging Face layout")
        return path

    get("config_sentence_transformers.json")
    modules = get("modules.json")
    for kind, folder in read_modules(modules.parent) if modules else [("Transformer", "")]:
        inside = f"{folder}/" if folder else ""
        if kind in ("Normalize", "Dropout"):
            if inside:
                get(f"{inside}config.json")
            continue
        path = need(f"{inside}config.json")
        if kind == "Transformer":
            config = path
            get(f"{inside}adapter_config.json")
            if not modules:
                get("chat_template.jinja")  # through which sentence-transformers would render every text
            else:
                next((True for file in LENGTH_FILES if (said := get(inside + file)) and read_fields(said).values), None)
            settings = get(f"{inside}tokenizer_config.json")
            if settings is None or not read_fields(settings).present("added_tokens_decoder"):
                for file in ("special_tokens_map.json", "added_tokens.json"):  # `transformers` reads these only then
                    get(inside + file)
            if get(f"{inside}tokenizer.json") is None:
                found = [get(inside + file) for file in VOCABULARIES]  # every one that exists
                if not any(found):
                    raise NotCached(f"{name} has no {inside}tokenizer.json, and no vocabulary of GPT-2, RoBERTa or BERT instead")
        if kind != "Pooling" and get(f"{inside}model.safetensors") is None:
            if (index := get(f"{inside}model.safetensors.index.json")) is None:
                raise NotCached(missing_weights_message(name, inside, others))
            for shard in sorted(set(read_index(index).values())):
                need(inside + shard)
    return config


def missing_weights_message(name: str, inside: str, others: Collection[str]) -> str:
    """What to do about a repository without safetensors."""
    pickles = [file for file in others if file.startswith(inside) and file.endswith(PICKLES)]
    if pickles:
        only = f"{name} has only {pickles[0]}, a pickle, which could run code and is never read"
        return f"{only}: take a revision with model.safetensors (see its pull requests: refs/pr/1, ...), or convert it"
    if f"{inside}adapter_config.json" in others:
        return f"{name} holds an adapter and no model: merge it into its model and save that"
    return f"{name} has no {inside}model.safetensors: the weights are read from there"
