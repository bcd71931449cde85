"""Dispatch grids as small expressions of a batch's sizes: the grid of an op is called with letters in place of numbers."""

from typing import Any

Expression = int | str | list[Any]


class Letter:
    """A size that is only known once there is a batch, or an expression of such sizes.

    Grids divide and round up, `-(-a // b)` (`cdiv`), which is what this records; any other arithmetic is a TypeError.
    """

    def __init__(self, tree: Expression) -> None:
        self.tree = tree

    def __neg__(self) -> "Letter":
        if isinstance(self.tree, list) and self.tree[0] == "floor of negative":
            return Letter(["cdiv", *self.tree[1:]])
        return Letter(["negative", self.tree])

    def __floordiv__(self, other: int) -> "Letter":
        if isinstance(self.tree, list) and self.tree[0] == "negative":
            return Letter(["floor of negative", self.tree[1], other])
        return NotImplemented


def write_expression(value: object) -> Expression:
    """A number, a letter, or ["cdiv", a, b]: a / b rounded up. Raises TypeError for arithmetic that is left unfinished."""
    if isinstance(value, Letter):
        if isinstance(value.tree, list) and value.tree[0] != "cdiv":
            raise TypeError(f"a grid may use numbers, letters and cdiv, not {value.tree}")
        return value.tree
    if isinstance(value, int):
        return value
    raise TypeError(f"a grid may use numbers, letters and cdiv, not {value!r}")


def write_grid(grid: tuple[object, ...]) -> list[Any]:
    """Three expressions."""
    return [write_expression(size) for size in grid]
