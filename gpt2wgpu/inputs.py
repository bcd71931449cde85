"""What a caller passes -> texts. Every call that takes texts uses this module, so all of them refuse the same things."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

from .errors import UserError, show

TextInput = str | Mapping[str, str]  # a text; {"text": text} is how sentence-transformers marks a text among other kinds of input
Inputs = TextInput | Iterable[TextInput]  # a text, or several in any ordered form


class TextInputs(NamedTuple):
    """single: one text was given, not several. total: how many there are, None if unknown."""

    texts: Iterator[str]
    total: int | None
    single: bool


def read_inputs(given: object, call: str) -> TextInputs:
    """The texts of a string, {"text": string}, or anything ordered that holds these: lists, arrays, columns, generators.

    An item that is not a string is left to the tokenizer, which names its position. call: the name of the call for messages,
    such as "encode". Raises UserError for anything that holds no texts, or has no order.
    """
    if isinstance(given, str) or is_text_record(given):
        return TextInputs(iter([read_text(given, 0)]), 1, True)
    if (found := describe_wrong_inputs(given)) is not None:
        raise UserError(f"{call} takes a text or a list of texts, got {found}")
    several: Any = given.to_pylist() if hasattr(given, "to_pylist") else given  # Arrow's scalars are not Python strings
    texts = (t if isinstance(t, str) else read_text(t, i) for i, t in enumerate(several))
    return TextInputs(texts, len(several) if isinstance(several, Sized) else None, False)


def read_several(given: object, call: str) -> TextInputs:
    """`read_inputs` for calls that make no sense for a single text. Raises UserError for one."""
    found = read_inputs(given, call)
    if found.single:
        raise UserError(f"{call} takes several texts, not one: give a list")
    return found


def list_texts(given: object, call: str) -> list[str]:
    """`read_several` as a list."""
    return [*read_several(given, call).texts]


def is_text_record(given: object) -> bool:
    return isinstance(given, Mapping) and [*given] == ["text"]


def read_text(given: Any, i: int) -> Any:
    """Text i: a string, or something that the tokenizer will refuse. Raises UserError for a mapping with other keys."""
    if not isinstance(given, Mapping):
        return given
    if not is_text_record(given):
        raise UserError(
            f"text {i} is a {type(given).__name__} with the keys {show([*given], 60)}: give strings, or {{'text': string}}"
        )
    return given["text"]


def describe_wrong_inputs(given: object) -> str | None:
    """What is wrong with inputs, and what to do instead; None if they can be read in order."""
    kind = type(given).__name__
    if isinstance(given, bytes | bytearray | memoryview):
        return f"{kind}: decode it, as in str(given, 'utf-8')"
    if isinstance(given, Mapping):
        return f"{kind} with the keys {show([*given], 60)}: give a list of its texts, or {{'text': string}}"
    if isinstance(given, set | frozenset):
        return f"{kind}, which has no order: give a list"
    columns = getattr(given, "column_names", getattr(given, "columns", None))
    if columns is not None:
        return f"{kind}: choose one of its columns, {show([str(c) for c in columns], 60)}"
    if (shape := getattr(given, "shape", None)) is not None and len(shape) != 1:
        return f"{kind} of shape {tuple(shape)}: one with a single axis is a list"
    return None if hasattr(given, "__iter__") and not isinstance(given, type) else f"{show(given, 40)} (type {kind})"
