"""Which column of a table holds the texts."""

from collections.abc import Sequence

from ..errors import UserError

USUAL_COLUMNS = ("text", "sentence")


def choose_column(name: str, names: Sequence[str], texts: Sequence[str], column: str | None, how: str) -> str:
    """The column asked for; else the only one that is known to hold `texts`; else one with a usual name.

    Another one is not guessed: the first row of a table may be no header at all.
    """
    if column is None and len(texts) == 1:
        return texts[0]
    for choice in USUAL_COLUMNS if column is None else (column,):
        if choice in names:
            return choice
    found = ", ".join(repr(n if len(n) <= 40 else n[:40] + "...") for n in names[:20])
    wanted = " or ".join(map(repr, USUAL_COLUMNS if column is None else (column,)))
    raise UserError(f"{name}: no column {wanted}, the columns are {found}; choose one with {how}")
