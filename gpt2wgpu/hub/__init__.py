"""A model's name -> its folder: one on disk, or one from the hub, downloaded once into huggingface_hub's cache.

A model in the cache opens without the network and without huggingface_hub.

cache.py        that cache, read by its layout
model_files.py  which files of a repository a model needs
download.py     fetches them into the cache
session.py      requests to a hub, and what its errors mean
known.py        the table of `gpt2wgpu models`
"""

import re
from pathlib import Path

from ..errors import UserError, show, warn_caller
from ..models import read_config
from ..models.fields import read_fields
from ..progress import is_set
from .cache import NotCached, Snapshot, Storage, cache_folder
from .model_files import list_model_files

__all__ = [
    "BUILT_IN",
    "BUILT_IN_NAME",
    "find_model",
    "is_cached",
    "is_name",
    "pull_model",
    "repository",
]

BUILT_IN = Path(__file__).parent.parent / "model"
BUILT_IN_NAME = "built-in"  # its name on the command line and in model cards
# The bare names that sentence-transformers 6.2 uses unchanged (util/misc.py), of architectures that are supported here; any
# other bare name means sentence-transformers/name.
BARE = frozenset(
    """bert-base-cased bert-base-cased-finetuned-mrpc bert-base-chinese bert-base-german-cased bert-base-german-dbmdz-cased
    bert-base-german-dbmdz-uncased bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-uncased
    bert-large-cased bert-large-cased-whole-word-masking bert-large-cased-whole-word-masking-finetuned-squad
    bert-large-uncased bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad
    camembert-base distilbert-base-cased distilbert-base-cased-distilled-squad distilbert-base-german-cased
    distilbert-base-multilingual-cased distilbert-base-uncased distilbert-base-uncased-distilled-squad
    distilbert-base-uncased-finetuned-sst-2-english distilgpt2 distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl
    roberta-base roberta-base-openai-detector roberta-large roberta-large-mnli roberta-large-openai-detector
    xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german""".split()  # noqa: SIM905
)

# Files that not every model has, and that change its vectors; Snapshot.doubts has the names of all that may be missing.
DECISIVE = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json")


def is_name(model: str | Path) -> bool:
    """Whether this is a valid name of a repository: name or org/name, of letters, digits, - _ and single dots."""
    part = r"[A-Za-z0-9_](?:[\w.-]*[\w])?"
    if not isinstance(model, str) or len(model) > 96 or ".." in model or "--" in model or model.endswith(".git"):
        return False
    return bool(re.fullmatch(rf"(?:{part}/)?{part}", model, re.ASCII))


def repository(name: str) -> str:
    """The repository that a name means, by sentence-transformers' rule."""
    return name if "/" in name or name.lower() in BARE else f"sentence-transformers/{name}"


def find_model(
    model: str | Path | None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: the built-in one for None, a folder that exists, or a repository on the hub by its name.

    Files that are not in the cache are downloaded; those in the cache are used unchanged (`pull_model` looks for newer ones).
    The options are those of sentence-transformers. Raises UserError.
    """
    if model == "":
        raise UserError("the model's name is empty: give a folder or a name on the hub, or leave it out for the built-in model")
    if model is None or model == BUILT_IN_NAME or isinstance(model, Path) or not is_name(model) or Path(model).exists():
        if revision is not None:
            raise UserError(f"revision {show(revision)} goes with a name on the hub, not with {model or 'the built-in model'}")
        return BUILT_IN if model is None or model == BUILT_IN_NAME else Path(model)
    storage, revision = find_storage(model, cache_folder), check_revision(revision)
    missing = f"there is no folder {model}, and {storage.name} is not in {show(storage.cache)}"
    commit = storage.commit(revision)
    if commit is not None:
        try:
            return complete_folder(Snapshot(storage, commit))
        except NotCached as e:
            missing = str(e)
    why = "local_files_only" if local_files_only else offline_variable()
    if why is None:
        try:
            return download_model(storage, revision, token)
        except UserError as error:  # no network, no token, a cache that cannot be written
            if commit is None or (folder := usable_folder(storage, commit)) is None:
                raise
            warn_caller(f"{storage.name} is used as it is in {show(storage.cache)}, where files may be missing: {error}")
            return folder
    if commit is not None and (folder := usable_folder(storage, commit)) is not None:
        return folder
    raise UserError(f"{missing}, and {why} forbids the download: run `gpt2wgpu pull {model}` once without it")


def pull_model(
    name: str, *, revision: str | None = None, token: str | bool | None = None, cache: str | Path | None = None
) -> Path:
    """The folder of a repository as it is on the hub now; missing files are downloaded. Raises UserError."""
    if not is_name(name):
        raise UserError(f"{show(name)} is not a model's name on the hub: expected org/name, or a bare name such as gpt2")
    if (why := offline_variable()) is not None:
        raise UserError(f"{why} is set, but pull asks the hub: run it without")
    return download_model(find_storage(name, cache), check_revision(revision), token)


def is_cached(name: str) -> bool:
    """Whether a model opens without the network."""
    try:
        storage = find_storage(name, None)
        commit = storage.commit("main")
        return commit is not None and complete_folder(Snapshot(storage, commit)).is_dir()
    except UserError:
        return False


def find_storage(name: str, cache: str | Path | None) -> Storage:
    """Where a repository is kept, by its name."""
    return Storage(cache_folder(cache), repository(name))


def check_revision(revision: str | None) -> str:
    """The revision, "main" by default, if it can be part of a path; else a UserError."""
    if revision is None:
        return "main"
    bad = any(part in ("", "..") or part[0] == "." or part[-1] == "." for part in revision.split("/"))
    if bad or re.search(r"[^!-~]", revision) or any(c in revision for c in '\\:*?"<>|^~[]'):
        raise UserError(f"revision {show(revision)} is not a branch, tag or commit")
    return revision


def complete_folder(snapshot: Snapshot) -> Path:
    """The folder of a snapshot that is complete. Raises NotCached."""
    list_model_files(snapshot.storage.name, snapshot.get)
    return snapshot.folder


def usable_folder(storage: Storage, commit: str) -> Path | None:
    """The folder of a snapshot, None if it cannot be opened; warns if it may lack files that change vectors."""
    snapshot = Snapshot(storage, commit, trust=True)
    try:
        folder = complete_folder(snapshot)
    except NotCached:
        return None
    if doubts := [file for name in DECISIVE for file in snapshot.doubts if Path(file).name == name]:
        doubt = f"the cache does not say whether it has a {' or a '.join(doubts)}, and is read as if it had none"
        warn_caller(f"{storage.name}: {doubt}: run `gpt2wgpu pull {storage.name}`")
    return folder


def download_model(storage: Storage, revision: str, token: str | bool | None) -> Path:
    """Download what is missing and return the folder. An unsupported model is refused before its weights are downloaded."""
    from .download import Repository

    found = Repository(storage, revision, token)
    read_config(read_fields(list_model_files(storage.name, found.get, found.files)))
    found.finish()
    return storage.snapshot(found.commit)


def offline_variable() -> str | None:
    """The name of the environment variable that forbids the network; None if no variable does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return next((name for name in names if is_set(name)), None)
