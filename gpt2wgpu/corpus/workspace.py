"""The folder next to an output in which it is made, OUTPUT.part, and the names of both."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from .. import files
from ..errors import UserError
from . import journal
from .journal import State
from .lock import take_lock

SHARD = "part-{:05}.parquet"
OURS = (journal.VECTORS, journal.TEXTS, journal.STATE, journal.NEW_STATE, journal.LOCK)


@dataclass(frozen=True)
class Workspace:
    """An output, the folder in which it is made, and how far that is."""

    path: str  # the output, as given; a folder of shards ends in a slash
    target: Path  # the same, with links resolved
    folder: Path  # holds the journal
    state: State | None  # left by an earlier process that did not finish
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
    """The unfinished state of an output, locked for this process. --resume continues from what is left afterwards.

    Raises UserError if the output cannot be written, another process is writing it, or there is unfinished work and no `resume`.
    """
    target = resolve_workspace(output)
    name = SHARD if is_folder(output) else target.name
    if files.suffix_of(name, files.VECTOR_FORMATS) in files.ARROW_FORMATS:
        files.import_arrow(output, "Parquet or Arrow")  # fail now, not after all rows are computed
    folder = Path(f"{target}.part")
    with files.name_output(output, folder):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)  # texts and vectors may be private
        check_work_folder(folder)
        files.sync_to_disk(folder.parent)
        held = take_lock(folder / journal.LOCK)
    if held is None:
        raise UserError(f"{output}: another process is writing it (it holds {folder / journal.LOCK})")
    with held:
        try:
            state = journal.read_journal(folder)
            if state is not None and not is_folder(output) and journal.is_finished(folder, state):
                (folder / journal.STATE).unlink()
                state = None
            if state is not None and not resume:
                raise UserError(f"{folder} holds {state.rows:,} texts: continue with --resume, or delete it to start again")
            shards = [*target.glob("part-*.parquet")] if is_folder(output) else []
            if shards and state is None and not resume:
                raise UserError(f"{output}: already holds {shards[0].name}: choose another folder, or delete it")
            for leftover in folder.glob(journal.TEMPORARY):
                leftover.unlink()
            complete = resume and state is None and (bool(shards) if is_folder(output) else target.exists())
            yield Workspace(output, target, folder, state, complete)
        finally:
            left = (folder / journal.STATE).exists()
            if not left:
                journal.remove_journal(folder)
    if not left:
        journal.remove_journal(folder)  # again: on Windows the lock could not be removed while it was held


def trusted_owners(folder: Path) -> set[int] | None:
    """Who may own this folder: this user, root, and the owner of its parent, who could replace it anyway. None: anyone."""
    if os.name == "nt":
        return None
    owners = {os.geteuid(), 0, folder.parent.stat().st_uid}
    with suppress(OSError), TemporaryFile(dir=folder.parent) as probe:
        owners.add(os.fstat(probe.fileno()).st_uid)  # a file server may map our files to another user, such as nobody
    return owners


def check_work_folder(folder: Path) -> None:
    """Raises UserError unless we made this folder: links that another user put into it would lead elsewhere."""
    owners = trusted_owners(folder)
    needed = "its name is needed for unfinished work"
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise UserError(f"{folder}: is not a folder, but {needed}: rename it")
    for path in (folder, *folder.iterdir()):
        try:
            found = path.lstat()
        except FileNotFoundError:  # the process that works here has finished
            continue
        if path != folder and path.name not in OURS and not path.match(journal.TEMPORARY):
            raise UserError(f"{folder}: holds {path.name!r}, which is not ours, but {needed}: rename it")
        if owners is not None and found.st_uid not in owners:
            raise UserError(f"{path}: belongs to another user (uid {found.st_uid}), but {needed}: choose another output")
        if path != folder and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
            raise UserError(f"{path}: is a link or not a file, expected a file of unfinished work: delete it")


def resolve_workspace(output: str) -> Path:
    """The output with links resolved. Raises UserError if it cannot be written."""
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
