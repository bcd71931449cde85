"""Reads huggingface_hub's cache by its layout, without importing that package.

models--org--name/refs/<revision>             the commit of a branch or tag
                  snapshots/<commit>/<file>   a link to the content
                  blobs/<etag>                the content; <etag>.incomplete during the download
                  .no_exist/<commit>/<file>   an empty file: the commit has no such file
                  trees/<commit>.json         the names of all its files, where a whole snapshot was downloaded
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError, show

COMMIT = re.compile(r"[0-9a-f]{40}")


class NotCached(UserError):
    """A file of a model is not in the cache, and the cache does not say that the model has none."""


def cache_folder(given: str | Path | None) -> Path:
    """The given folder, else the one that environment variables name, by sentence-transformers' and huggingface_hub's rules."""
    e = os.environ.get
    choices = (
        (None if given is None else str(given), ""),
        (e("SENTENCE_TRANSFORMERS_HOME"), ""),
        (e("HF_HUB_CACHE"), ""),
        (e("HUGGINGFACE_HUB_CACHE"), ""),
        (e("HF_HOME"), "hub"),
        (e("XDG_CACHE_HOME"), "huggingface/hub"),
        ("~/.cache", "huggingface/hub"),
    )
    value, inside = next((value, inside) for value, inside in choices if value)
    try:
        return Path(os.path.expandvars(value)).expanduser() / inside
    except RuntimeError:  # neither HOME nor an entry in passwd
        raise UserError(f"{show(value)}, the cache of models, needs a home folder: set HF_HOME or HOME") from None


@dataclass(frozen=True)
class Storage:
    """The place of one repository in a cache."""

    cache: Path
    name: str  # org/name, or a bare name

    @property
    def folder(self) -> Path:
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def lacks(self, commit: str, file: str) -> Path:
        return self.folder / ".no_exist" / commit / file

    def ref(self, revision: str) -> Path:
        return self.folder / "refs" / revision

    def commit(self, revision: str) -> str | None:
        """The commit that the cache holds for a branch, tag or commit; None if it holds none."""
        if COMMIT.fullmatch(revision):
            return revision if self.snapshot(revision).is_dir() else None
        try:
            commit = self.ref(revision).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return commit if re.fullmatch(r"[\w-]+", commit) and self.snapshot(commit).is_dir() else None


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit in the cache.

    trust: a missing file counts as absent from the repository even if the cache does not say so; it is added to `doubts`.
    """

    storage: Storage
    commit: str
    trust: bool = False
    doubts: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.storage.snapshot(self.commit)

    def get(self, file: str) -> Path | None:
        """The path of a file; None if the commit has no such file. Raises NotCached if the cache does not say."""
        if (path := self.folder / file).exists():
            return path
        if self.is_known_to_lack(file):
            return None
        if self.trust:
            self.doubts.append(file)
            return None
        raise NotCached(f"{self.storage.name} is in {show(self.storage.cache)}, but without {file}")

    def is_known_to_lack(self, file: str) -> bool:
        """Whether the cache says that the commit has no such file."""
        if self.storage.lacks(self.commit, file).exists():
            return True
        try:
            tree = json.loads((self.storage.folder / "trees" / f"{self.commit}.json").read_text("utf-8"))
            return file not in tree["files"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        # Tools that fetch single files record missing ones in .no_exist (the Rust client does not). snapshot_download records
        # nothing but always fetches .gitattributes.
        whole = (self.folder / ".gitattributes").exists() and not self.storage.lacks(self.commit, "").is_dir()
        in_part = file == "modules.json" and any(
            (self.folder / part).exists()
            for part in ("1_Pooling", "sentence_bert_config.json", "config_sentence_transformers.json")
        )
        return whole and not in_part
