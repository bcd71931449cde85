"""Fields of requests. null equals absent everywhere, unknown fields are ignored, and a wrong type names the field."""

from typing import Any, TypeVar

import msgspec

from .failures import EMPTY, MALFORMED, VALIDATION, Refusal
from .service import ROLES, TextOrIds

S = TypeVar("S", bound=msgspec.Struct)
IDS_REFUSED = "token ids are refused: they belong to one tokenizer, and this model has its own. Send texts"
LANGCHAIN = "LangChain's OpenAIEmbeddings sends ids unless check_embedding_ctx_length=False"
TAKE_THEM = "a server started with --token-ids takes them"


def read_body(body: bytes, form: type[S]) -> S:
    """A request's body as a struct. Raises Refusal naming the field that has the wrong type."""
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise Refusal(MALFORMED, f"the request has a wrong field: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(MALFORMED, f"the request is not JSON: {error}") from None


def read_texts_field(given: Any, name: str, token_ids: str) -> list[TextOrIds]:
    """The texts of a field: one, or a list. token_ids: "refuse", or "model" or "cl100k" for what ids stand for.

    Raises Refusal for anything else, naming the item.
    """
    if given is None:
        raise Refusal(EMPTY, f"{name} is missing: give a text or a list of texts", param=name)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise Refusal(MALFORMED, f"{name} must be a text or a list of texts, not {describe_kind(given)}", param=name)
    if given and all(is_id(item) for item in given):
        given = [given]  # one text
    texts: list[TextOrIds] = []
    for i, item in enumerate(given):
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, list) and item and all(is_id(n) for n in item):
            texts.append(take_ids(item, name, token_ids))
        else:
            raise Refusal(MALFORMED, f"item {i} of {name} must be a text, not {describe_kind(item)}", param=name)
    if len({type(text) for text in texts}) > 1:
        raise Refusal(MALFORMED, f"{name} mixes texts and token ids: send one kind", param=name)
    return texts


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def describe_kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", dict: "an object"}
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return names.get(type(value), type(value).__name__)


def take_ids(ids: list[int], name: str, token_ids: str) -> TextOrIds:
    """Token ids as the server takes them. Raises Refusal if it does not."""
    if token_ids == "model":
        return ids
    if token_ids == "cl100k":
        import tiktoken

        try:
            return str(tiktoken.get_encoding("cl100k_base").decode(ids))
        except (KeyError, ValueError, OverflowError) as error:
            raise Refusal(VALIDATION, f"{name} holds ids that are not of cl100k_base: {error}", param=name) from None
    raise Refusal(VALIDATION, f"{IDS_REFUSED} ({LANGCHAIN}); {TAKE_THEM}", param=name)


def read_role(input_type: str | None, task: str | None, alias: str | None) -> str | None:
    """Which side of a search the texts are: by Cohere's and NVIDIA's input_type, Jina's task, or the alias of the model."""
    for name, value in (("input_type", input_type), ("task", task)):
        if value is not None:
            if value not in ROLES:
                raise Refusal(VALIDATION, f"{name} is {value!r}, known are {', '.join(ROLES)}", param=name)
            return value
    return alias


def check_direction(given: str | None, cuts_left: bool) -> None:
    """TEI's truncation_direction. Raises Refusal for a side on which the model's tokenizer does not cut."""
    own = "left" if cuts_left else "right"
    if given is not None and given.lower() != own:
        found = f"truncation_direction is {given!r}, this model's tokenizer cuts on the {own}"
        raise Refusal(VALIDATION, f"{found}: leave it out", param="truncation_direction")


def read_timeout(milliseconds: str | None) -> float | None:
    """The header x-request-timeout-ms, in seconds: after so long the caller waits no more. Raises Refusal if it is no number."""
    if milliseconds is None:
        return None
    if not milliseconds.isdecimal() or not int(milliseconds):
        raise Refusal(VALIDATION, f"x-request-timeout-ms is {milliseconds!r}, expected a whole number from 1")
    return int(milliseconds) / 1e3
