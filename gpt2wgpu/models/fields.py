"""The JSON files of a model folder. Every field is checked as it is read; errors name the file, the field and its value."""

import json
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, is_text, show

LARGEST_FILE = 1 << 24  # bytes of JSON; the largest real ones, lists of tensors and of added tokens, have a few million
DEEPEST = 100  # objects and lists inside each other
LARGEST_INTEGER = (1 << 31) - 1  # sizes and indices are 32 bits in shaders
LARGEST_NUMBER = 3.4028234663852886e38  # the largest float32


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError if it is missing, not a regular file, not JSON, or absurdly large or deep."""
    try:
        if (size := check_regular(path)) > LARGEST_FILE:
            raise UserError(f"{show(path)} has {size} bytes, expected at most {LARGEST_FILE}: download it again")
        value = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{show(path)} is missing: a model folder needs this file; download it again") from None
    except OSError as e:
        raise UserError(f"{show(path)} cannot be read: {e.strerror or 'no access'}") from None
    except (ValueError, RecursionError) as e:  # not UTF-8, not JSON, a number with 5,000 digits, 10,000 brackets
        if isinstance(e, UserError):
            raise
        why = f"{e.msg}, line {e.lineno}" if isinstance(e, json.JSONDecodeError) else "not UTF-8, or absurdly long or deep"
        raise UserError(f"{show(path)} is not valid JSON ({why}): download it again") from None
    if is_too_deep(value):
        raise UserError(f"{show(path)} nests objects and lists more than {DEEPEST} deep: download it again")
    return value


def check_regular(path: Path) -> int:
    """The size in bytes of a file that is about to be opened. Raises UserError for a pipe, where opening would block."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{show(path)} cannot be read: it is not a regular file")
    return found.st_size


def is_too_deep(value: Any) -> bool:
    """Whether a JSON value nests deeper than DEEPEST. Python's repr and comparisons recurse and fail on such values."""
    level = [value]
    for _ in range(DEEPEST + 1):
        containers = [v for v in level if isinstance(v, dict | list)]
        if not containers:
            return False
        level = [v for parent in containers for v in (parent.values() if isinstance(parent, dict) else parent)]
    return True


def is_absent(path: Path) -> bool:
    """Whether nothing has this name. A broken link or an unreadable folder is not absent: reading it says what is wrong."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class Fields:
    """The object in a JSON file. A field that is null counts as absent, as it does for `transformers`.

    The methods take one field's name, or several in order of precedence, and a default; without a default the field is required.
    `known` collects the names that were asked for, so that `refuse_unknown` can name the others.
    """

    path: Path
    values: dict[str, Any]
    known: set[str] = field(default_factory=set, repr=False, compare=False)

    def refuse(self, name: str, expected: str) -> UserError:
        """The error for a field: what was found, and what was expected."""
        found = f"is {show(self.values[name])}" if self.values.get(name) is not None else "is missing"
        return UserError(f"{show(self.path)}: {name} {found}, expected {expected}")

    def refuse_unknown(self, harmless: Collection[str] = ()) -> None:
        """Raise UserError for a field that nothing asked for, unless it is `harmless` (no vector depends on it) or null."""
        for name, value in self.values.items():
            if value is not None and name not in self.known and name not in harmless:
                found = f"{show(name)} is {show(value, 40)}, a field that is not known here and may change vectors"
                raise UserError(f"{show(self.path)}: {found}: remove it if it does not")

    def value(self, name: str) -> Any:
        """The value as it is; None if the field is absent."""
        self.known.add(name)
        return self.values.get(name)

    def present(self, name: str) -> bool:
        return self.value(name) is not None

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """An integer from `least` to 2^31 - 1."""

        def fits(v: object) -> bool:
            return isinstance(v, int) and not isinstance(v, bool) and v >= least

        value = self._field(names, default, "a positive integer" if least == 1 else f"an integer of at least {least}", fits)
        if value > LARGEST_INTEGER and (given := [name for name in names if self.present(name)]):
            raise self.refuse(given[0], f"at most {LARGEST_INTEGER}")
        return int(value)

    def number(self, *names: str, default: float | None = None) -> float:
        """A positive float, even if JSON writes it without a point: its type decides how a shader reads the bits."""

        def fits(v: object) -> bool:
            return isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= LARGEST_NUMBER

        return float(self._field(names, default, "a positive number", fits))

    def flag(self, *names: str, default: bool | None = None) -> bool:
        """true or false; also 1 or 0, which transformers and sentence-transformers accept."""
        return bool(self._field(names, default, "true or false", lambda v: isinstance(v, int) and v in (0, 1)))

    def text(self, *names: str, default: str | None = None) -> str:
        return self._field(names, default, "a string", is_text)

    def object(self, *names: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._field(names, default, "an object", lambda v: isinstance(v, dict))

    def _field(self, names: tuple[str, ...], default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        self.known.update(names)
        for name in names:
            if (value := self.values.get(name)) is not None:
                if not fits(value):
                    raise self.refuse(name, expected)
                return value
        if default is None:
            raise self.refuse(names[0], expected)
        return default


def read_fields(path: Path, *, optional: bool = False) -> Fields:
    """The object in a JSON file; without any field where an `optional` file does not exist. Raises UserError."""
    if optional and is_absent(path):
        return Fields(path, {})
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{show(path)} holds {show(values)}, expected a JSON object: download it again")
    return Fields(path, values)
