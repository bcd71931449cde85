"""The prompts of a model: what is put before a query or a document, because it was trained with that."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from .checkpoint import Checkpoint
from .jsonfile import read_fields

QUERY = "Represent this sentence for searching relevant passages: "
NOMIC = {"query": "search_query: ", "document": "search_document: "}
NOMIC |= {"clustering": "clustering: ", "classification": "classification: "}


class Family(NamedTuple):
    """Models whose repositories do not say which prompts they expect; their cards do."""

    names: str  # a pattern for the last part of a name
    prompts: dict[str, str]


FAMILIES = (
    # intfloat: Wang et al. 2022, 2024
    Family(r"(multilingual-)?e5-(small|base|large)(-v2)?(-unsupervised)?", {"query": "query: ", "passage": "passage: "}),
    # BAAI: Xiao et al. 2023; documents go without
    Family(r"bge-(small|base|large)-en(-v1\.5)?", {"query": QUERY, "document": ""}),
    Family(r"bge-(small|base|large)-zh(-v1\.5)?", {"query": "为这个句子生成表示以用于检索相关文章：", "document": ""}),
    Family(r"uae-large-v1", {"query": QUERY, "document": ""}),  # WhereIsAI: Li and Li 2023
    # nomic-ai, lightonai: Nussbaum et al. 2024
    Family(r"nomic-embed-text-v1(\.5)?(-unsupervised)?|modernbert-embed-(base|large)", NOMIC),
)


def of_family(names: Iterable[str | None]) -> dict[str, str]:
    """The prompts of the family that one of a model's names belongs to, none if it is in no family.

    A name may be org/name, a path, or what config.json calls `_name_or_path`; only its last part counts.
    """
    for name in names:
        last = re.split(r"[/\\]", (name or "").rstrip("/\\"))[-1].lower()
        for family in FAMILIES:
            if re.fullmatch(family.names, last):
                return dict(family.prompts)
    return {}


def model_names(given: str, c: Checkpoint) -> list[str | None]:
    """What a model is called: by the user, in a cache of the hub, by its folder, and in its own config.json."""
    cached = re.fullmatch(r"models--.*--(.+)", c.path.resolve().parent.parent.name)
    own = read_fields(c.folder / "config.json").values.get("_name_or_path")
    return [given, cached[1] if cached else None, c.path.resolve().name, own if isinstance(own, str) else None]
