"""A progress bar for long work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(show: bool | None, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if one is asked for; gives the function that advances it by a number of texts."""
    if not show:
        yield lambda texts: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("encoding", total=total)
        yield lambda texts: bar.advance(task, texts)
