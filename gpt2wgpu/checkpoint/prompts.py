"""The prompts of a model: what is put before a query or a document, because it was trained with that."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import UserError
from ..models.fields import read_fields
from . import Checkpoint

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


def family_prompts(names: Iterable[str | None]) -> dict[str, str]:
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


def find_prompt(prompts: dict[str, str], prompt: str | None, name: str | None, default: str | None) -> str:
    """The prompt to put before each text: given as text, or by name, or the default one, or none."""
    if isinstance(prompt, str):
        return prompt
    if prompt is not None:
        raise UserError(f"prompt must be a text, not {prompt!r}")
    name = name or default
    if name is None:
        return ""
    if name not in prompts:
        known = ", ".join(prompts) or "none"
        raise UserError(f"prompt_name {name!r} is not among the model's prompts ({known}); give its text as prompt=")
    return prompts[name]


def first_prompt(prompts: dict[str, str], *names: str) -> str:
    """The first of these prompts that the model has, or none; never the default one."""
    return next((prompts[name] for name in names if name in prompts), "")


def reminder(model: str, prompts: dict[str, str]) -> str:
    """What is said where a model of a family is given no prompt."""
    names = ", ".join(name for name, text in prompts.items() if text)
    advice = "encode_query and encode_document choose one, or prompt_name=; prompt='' asks for none"
    return f"{model} was trained with prompts before its texts ({names}), and none is given: {advice}"
