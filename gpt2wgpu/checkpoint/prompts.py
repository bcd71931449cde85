"""The prompts of a model: the text to put before a query or a document, because the model was trained with it.

One default differs from sentence-transformers 6.2. `encode_document` takes the first of "document", "passage" and "corpus" that
the model has, as sentence-transformers' documentation says; a model with the prompts "query" and "passage" was trained with
the latter. In sentence-transformers every model also has an empty "document", which wins, so such documents get no prompt.
A "document" that the folder or the user gives wins here too, even an empty one.
"""

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
    """Models whose prompts are in their model cards but not in their files."""

    names: str  # a regular expression for the last part of a model's name
    prompts: dict[str, str]


FAMILIES = (
    # intfloat: Wang et al. 2022, 2024
    Family(r"(multilingual-)?e5-(small|base|large)(-v2)?(-unsupervised)?", {"query": "query: ", "passage": "passage: "}),
    # BAAI: Xiao et al. 2023; documents get no prompt
    Family(r"bge-(small|base|large)-en(-v1\.5)?", {"query": QUERY, "document": ""}),
    Family(r"bge-(small|base|large)-zh(-v1\.5)?", {"query": "为这个句子生成表示以用于检索相关文章：", "document": ""}),
    Family(r"uae-large-v1", {"query": QUERY, "document": ""}),  # WhereIsAI: Li and Li 2023
    # nomic-ai, lightonai: Nussbaum et al. 2024
    Family(r"nomic-embed-text-v1(\.5)?(-unsupervised)?|modernbert-embed-(base|large)", NOMIC),
)


def family_prompts(names: Iterable[str | None]) -> dict[str, str]:
    """The prompts of the first family that matches one of a model's names; {} if none does.

    A name may be org/name, a path, or the `_name_or_path` of config.json; only its last part is compared.
    """
    for name in names:
        last = re.split(r"[/\\]", (name or "").rstrip("/\\"))[-1].lower()
        for family in FAMILIES:
            if re.fullmatch(family.names, last):
                return dict(family.prompts)
    return {}


def model_names(given: str, c: Checkpoint) -> list[str | None]:
    """The names of a model: the user's, the one in the hub's cache, its folder's, and `_name_or_path` of config.json."""
    cached = re.fullmatch(r"models--.*--(.+)", c.path.resolve().parent.parent.name)
    own = read_fields(c.folder / "config.json").values.get("_name_or_path")
    return [given, cached[1] if cached else None, c.path.resolve().name, own if isinstance(own, str) else None]


def find_prompt(prompts: dict[str, str], prompt: str | None, name: str | None, default: str | None) -> str:
    """The text to put before each text: `prompt`, else the prompt called `name`, else the default one, else "".

    Raises UserError for a name that the model does not have.
    """
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
    """The text of the first of these names that the model has, else ""; never the default prompt."""
    return next((prompts[name] for name in names if name in prompts), "")


def prompt_reminder(model: str, prompts: dict[str, str]) -> str:
    """The warning for a model of a family that is used without a prompt."""
    names = ", ".join(name for name, text in prompts.items() if text)
    advice = "use encode_query and encode_document, or prompt_name=; prompt='' means none"
    return f"{model} was trained with prompts before its texts ({names}), and none is given: {advice}"
