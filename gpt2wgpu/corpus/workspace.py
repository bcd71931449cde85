"""An output in the making: what it will be called, and the folder beside it that is worked in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import files
from ..errors import UserError
from . import journal
from .journal import State
from .lock import lock

SHARD = "part-{:05}.parquet"
OURS = (journal.VECTORS, journal.TEXTS, journal.STATE, journal.NEW_STATE, journal.LOCK)


@dataclass(frozen=True)
class Workspace:
    path: str  # of the output, as given; a folder of shards ends in a slash
    target: Path  # the same, through links
    folder: Path
    state: State | None  # of an earlier process that did not finish
    complete: bool  # nothing is left to do

    @property
    def sharded(self) -> bool:
        return is_folder(self.path)

    @property
    def suffix(self) -> str:
        return str(files.suffix_of(SHARD if self.sharded else self.target.name, files.VECTOR_FORMATS))

    def output(self, shard: int) -> str:
        """The path of a finished file."""
        return str(Path(self.path, SHARD.format(shard))) if self.sharded else self.path


def is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep))


@contextmanager
def open_workspace(output: str, *, resume: bool) -> Iterator[Workspace]:
    """The work on an output, for this process alone; what is left of it afterwards is what --resume can go on from.

    Raises UserError: it cannot be written, another process is at it, or there is unfinished work and `resume` is not asked for.
    """
    target = resolve_workspace(output)
    name = SHARD if is_folder(output) else target.name
    if files.suffix_of(name, files.VECTOR_FORMATS) in files.ARROW_FORMATS:
        files.import_arrow(output, "Parquet or Arrow")  # now, and not when all is done
    folder = Path(f"{target}.part")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is where work is kept, and is not a folder: move it away")
    with files.naming(output, folder):
        folder.mkdir(exist_ok=True)
        files.sync(folder.parent)
        strangers = [p.name for p in folder.iterdir() if p.name not in OURS and not p.match(journal.TEMPORARY)]
        if strangers:
            raise UserError(f"{folder}: is where work is kept, and holds {strangers[0]!r}, which is not ours: move it away")
        held = lock(folder / journal.LOCK)
    if held is None:
        raise UserError(f"{output}: another process is writing it (it holds {folder / journal.LOCK})")
    with held:
        try:
            state = journal.read_journal(folder)
            if state is not None and not is_folder(output) and journal.finished(folder, state):
                (folder / journal.STATE).unlink()
                state = None
            if state is not None and not resume:
                raise UserError(f"{folder} holds {state.rows:,} finished texts: go on with --resume, or delete it to begin again")
            shards = [*target.glob("part-*.parquet")] if is_folder(output) else []
            if shards and state is None and not resume:
                raise UserError(f"{output}: holds {shards[0].name} already: choose another folder, or delete it")
            for leftover in folder.glob(journal.TEMPORARY):
                leftover.unlink()
            complete = resume and state is None and (bool(shards) if is_folder(output) else target.exists())
            yield Workspace(output, target, folder, state, complete)
        finally:
            left = (folder / journal.STATE).exists()
            if not left:
                journal.remove(folder)
    if not left:
        journal.remove(folder)  # on Windows it is only now that nobody holds the lock


def resolve_workspace(output: str) -> Path:
    """Raises UserError where the output cannot be written."""
    if not is_folder(output):
        if Path(output).is_dir():
            raise UserError(f"{output}: is a folder; end the name with a slash to write shards into it")
        return files.resolve_output(output, files.VECTOR_FORMATS)[0]
    target = Path(os.path.realpath(output))
    if target.exists() and not target.is_dir():
        raise UserError(f"{output}: is not a folder")
    if not target.parent.is_dir():
        raise UserError(f"{output}: there is no folder {target.parent}")
    return target
