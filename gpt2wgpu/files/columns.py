"""Which column of a table holds the texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError, show

USUAL_COLUMNS = ("text", "sentence")


@dataclass
class ColumnChoice:
    """asked: a name or, of a .csv or .tsv file, a number. found: what the first file made of it; the others of a folder agree."""

    asked: str | None
    found: str | None = None

    @property
    def guessed(self) -> bool:
        return self.asked is None and self.found is not None and self.found not in USUAL_COLUMNS

    def find(self, where: str, columns: Mapping[str, bool | None], how: str) -> str:
        """The column asked for; else one with a usual name, whatever it holds; else the only one that can be the texts.

        columns: for each name, whether it holds texts; None where it might (a null, a list, an object; no header). A column that
        was guessed must stay the only one with texts. Raises UserError.
        """
        wanted = USUAL_COLUMNS if self.asked is None else (self.asked,)
        if self.found is not None:
            wanted = (self.found,)
        found = next((name for name in wanted if name in columns), None)
        if found is None and self.found is None and self.asked is None:
            found = find_only_text(columns)
        if found is None:
            shown = ", ".join(show(name, 43) for name in list(columns)[:20])
            raise UserError(
                f"{where}: no column {' or '.join(map(show, wanted))}, the columns are {shown}; choose one with {how}"
            )
        self.found = found
        other = next((name for name, holds_texts in columns.items() if holds_texts and name != found), None)
        if self.guessed and other is not None:
            raise UserError(f"{where} has texts in {show(other)} too, and before only in {show(found)}: choose one with {how}")
        return found


def find_only_text(columns: Mapping[str, bool | None]) -> str | None:
    """None if it is not certain. A column of identifiers is never taken: its vectors would mean nothing."""
    candidates = [name for name, holds_texts in columns.items() if holds_texts is not False]
    only = candidates[0] if len(candidates) == 1 and columns[candidates[0]] else None
    return None if only is None or is_identifier(only) else only


def is_identifier(name: str) -> bool:
    """Whether a column of this name identifies rows: id, _id, doc_id, docId, uuid."""
    return re.search(r"(?i:(^|[^a-z])(uu)?id)$|[a-z]I[dD]$", name) is not None
