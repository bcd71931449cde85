"""What the server says on stderr, which may be a file on a full disk, or a pipe that nobody reads."""

import os
import sys
import traceback
from contextlib import suppress

from ..progress import notice


def say(line: str) -> None:
    """One line on stderr. Where it cannot be written it is lost, and the server goes on."""
    with suppress(OSError):
        notice(line)


def say_traceback(error: BaseException) -> None:
    """Where an error that is a bug comes from."""
    with suppress(OSError):
        traceback.print_exception(error, file=sys.stderr)


def drop_unwritten() -> None:
    """Drop what stderr did not take: Python would try again on exit, and end with code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
