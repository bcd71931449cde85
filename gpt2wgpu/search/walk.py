"""The files of folders, as ripgrep sees them: no hidden ones, none that .gitignore names, no links."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError, show
from .ignore import IgnoreRule, find_verdict, parse_rules

Rules = list[tuple[Path, list[IgnoreRule]]]  # the folder in which each .gitignore lies, outermost first


@dataclass(frozen=True)
class FoundFile:
    """path: absolute. stat: size, mtime, ctime and inode. named: it was asked for itself, not found in a folder."""

    path: str
    stat: tuple[int, int, int, int]
    named: bool


def find_files(paths: Sequence[str], leave_out: Path | None = None) -> list[FoundFile]:
    """The files that paths mean, in the order of their names, each once. leave_out: a folder that is not searched, an index.

    Raises UserError for a path that is neither a file nor a folder; OSError.
    """
    found: dict[str, FoundFile] = {}
    hidden = leave_out.resolve() if leave_out is not None else None
    for given in paths:
        path = Path(given)
        if path.is_file():
            file = describe_file(path.resolve(), named=True)
            found[file.path] = file
        elif path.is_dir():
            whole = path.resolve()
            for file in walk_folder(whole, sorted_entries(whole), read_outer_rules(whole), hidden):
                found.setdefault(file.path, file)
        else:
            why = "is not a file or a folder" if path.exists() else "no such file or folder"
            raise UserError(f"{show(path)}: {why}")
    return sorted(found.values(), key=lambda file: file.path)


def describe_file(path: Path, *, named: bool) -> FoundFile:
    stat = path.stat()
    return FoundFile(str(path), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino), named)


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda e: e.name)


def walk_folder(folder: Path, entries: Sequence[os.DirEntry[str]], rules: Rules, leave_out: Path | None) -> Iterator[FoundFile]:
    """The files below a folder. rules: of the folders around it. What may not be looked into, a folder or its .gitignore too, is
    given as a file without a stat: who opens it learns why."""
    try:
        rules = [*rules, *read_rules(folder)]
    except OSError as error:
        yield FoundFile(str(error.filename), (0, 0, 0, 0), named=False)
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.is_symlink() or path == leave_out:
            continue
        is_folder = entry.is_dir()
        if is_ignored(path, rules, is_folder=is_folder):
            continue
        try:
            if is_folder:
                inside = sorted_entries(path)
            elif entry.is_file():
                yield describe_file(path, named=False)
        except FileNotFoundError:
            continue  # gone since it was listed
        except OSError:
            yield FoundFile(str(path), (0, 0, 0, 0), named=False)
            continue
        if is_folder:
            yield from walk_folder(path, inside, rules, leave_out)


def is_ignored(path: Path, rules: Rules, *, is_folder: bool) -> bool:
    """Whether the innermost .gitignore that says anything about a path says to leave it out."""
    for folder, own in reversed(rules):
        verdict = find_verdict(own, os.fsencode(path.relative_to(folder).as_posix()), is_folder=is_folder)
        if verdict is not None:
            return verdict
    return False


def read_rules(folder: Path) -> Rules:
    """The folder's own .gitignore; at the root of a repository also git's own list, which it overrides."""
    paths = (folder / ".git" / "info" / "exclude", folder / ".gitignore")
    # os.path, as Path.is_file raises where the folder may be listed and not entered
    return [(folder, parse_rules(path.read_bytes())) for path in paths if os.path.isfile(path)]  # noqa: PTH113


def read_outer_rules(folder: Path) -> Rules:
    """The rules of the folders around this one, up to the root of its repository; none outside a repository."""
    above = [folder, *folder.parents]
    root = next((i for i, f in enumerate(above) if (f / ".git").exists()), 0)
    return [rule for f in reversed(above[1 : root + 1]) for rule in read_rules(f)]
