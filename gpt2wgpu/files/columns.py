"""Which column of a table holds the texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError, show

USUAL_COLUMNS = ("text", "sentence")


@dataclass
class ColumnChoice:
    """asked: a name or, for .csv and .tsv, a number. found: the column taken in the first file, and so in the whole folder."""

    asked: str | None
    found: str | None = None

    @property
    def guessed(self) -> bool:
        return self.asked is None and self.found is not None and self.found not in USUAL_COLUMNS

    def find(self, where: str, columns: Mapping[str, bool | None], how: str) -> str:
        """The column asked for; else one with a usual name, whatever it holds; else the only one that can be the texts.

        columns: for each name, whether it holds texts; None if unknown (a null, a list, an object, a column of a table). A column
        that was guessed must stay the only one with texts. how: the option to choose one, for messages. Raises UserError.
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
    """The only column that holds texts, None if uncertain. Never one of identifiers: their vectors would mean nothing."""
    candidates = [name for name, holds_texts in columns.items() if holds_texts is not False]
    only = candidates[0] if len(candidates) == 1 and columns[candidates[0]] else None
    return None if only is None or is_identifier(only) else only


def is_identifier(name: str) -> bool:
    """Whether the name suggests identifiers of rows: id, _id, doc_id, docId, uuid."""
    return re.search(r"(?i:(^|[^a-z])(uu)?id)$|[a-z]I[dD]$", name) is not None
