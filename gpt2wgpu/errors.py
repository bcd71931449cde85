"""Telling the person at the keyboard what is wrong."""


class UserError(ValueError):
    """Input, a file or a device that cannot be used: what was expected, what was found, what to do. One line."""


def between(name: str, value: int, low: int, high: int) -> int:
    """The value if it is a whole number in range, else a UserError."""
    if not hasattr(value, "__index__") or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return int(value)
