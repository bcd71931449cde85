"""The JSON files of a model folder. Every field is checked as it is read; a refusal names file, field and what was found."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, is_text, show


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UserError where there is no such file or no JSON in it."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{show(path)} is missing: a model folder needs this file; download it again") from None
    except OSError as e:
        raise UserError(f"{show(path)} cannot be read: {e.strerror or 'no access'}") from None
    except (ValueError, RecursionError) as e:  # not UTF-8, not JSON, a number with 5,000 digits, 10,000 brackets
        why = f"{e.msg}, line {e.lineno}" if isinstance(e, json.JSONDecodeError) else "not UTF-8, or absurdly long or deep"
        raise UserError(f"{show(path)} is not valid JSON ({why}): download it again") from None


@dataclass(frozen=True)
class Fields:
    """The object in a JSON file. A field that is null counts as absent, as it does for `transformers`.

    Each method takes one field's name, or a new and an old one, and what it is when absent (nothing: it has to be there).
    """

    path: Path
    values: dict[str, Any]

    def refuse(self, name: str, expected: str) -> UserError:
        found = f"is {show(self.values[name])}" if self.values.get(name) is not None else "is missing"
        return UserError(f"{show(self.path)}: {name} {found}, expected {expected}")

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        return self._field(names, default, kind, lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least)

    def number(self, *names: str, default: float | None = None) -> float:
        def positive(v: object) -> bool:
            return isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf

        return self._field(names, default, "a positive number", positive)

    def flag(self, *names: str, default: bool | None = None) -> bool:
        return self._field(names, default, "true or false", lambda v: isinstance(v, bool))

    def text(self, *names: str, default: str | None = None) -> str:
        return self._field(names, default, "a string", is_text)

    def object(self, *names: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._field(names, default, "an object", lambda v: isinstance(v, dict))

    def present(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _field(self, names: tuple[str, ...], default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        for name in names:
            if (value := self.values.get(name)) is not None:
                if not fits(value):
                    raise self.refuse(name, expected)
                return value
        if default is None:
            raise self.refuse(names[0], expected)
        return default


def read_fields(path: Path, *, optional: bool = False) -> Fields:
    """The object in a JSON file; without any field where an `optional` file does not exist."""
    if optional and not path.exists():
        return Fields(path, {})
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{show(path)} holds {show(values)}, expected a JSON object: download it again")
    return Fields(path, values)
