"""A file of texts: its kind, its bytes without their packing, and how far it has been read."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import UserError, show

PACKED = (".gz", ".zst")


class Source:
    """One file, or standard input ("-"). `kind`: its suffix, ignoring .gz and .zst. `size`: in bytes, 0 if unknown."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == "-" else show(Path(path))  # for messages
        name = Path() if path == "-" else Path(path.lower())
        self.packed = name.suffix if name.suffix in PACKED else ""
        self.kind = Path(name.stem).suffix if self.packed else name.suffix
        self.size = 0
        with suppress(OSError):  # reported when it is opened
            self.size = 0 if path == "-" else Path(path).stat().st_size
        self.line = 0  # where the row that was read last begins, in formats that have lines
        self.tell: Callable[[], int] = lambda: 0
        self.close: Callable[[], None] = lambda: None  # closes the open file, even if a reader still holds it

    @property
    def position(self) -> int:
        """Bytes of the file that have been read; 0 for a pipe."""
        with suppress(OSError):
            return self.tell()
        return 0

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes, unpacked as they are read. Raises UserError if the packing is damaged; OSError."""
        if self.path == "-":
            if sys.stdin is None:  # closed by the shell, as with <&-
                raise UserError("standard input is closed: give it a file or a pipe")
            yield sys.stdin.buffer
            return
        with Path(self.path).open("rb") as raw:
            self.tell, self.close = raw.tell, raw.close
            try:
                yield unpack_source(raw, self)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise self.damaged(error) from None
            except OSError as error:
                if error.errno is not None:
                    error.filename = error.filename or self.name  # errors of reading do not name the file
                    raise
                raise self.damaged(error) from None  # pyarrow's error for damaged packing
            finally:
                self.tell = lambda: self.size

    def damaged(self, error: Exception) -> UserError:
        why = " ".join(str(error).split()).rstrip(".")[:200] or "it ends too early"
        return UserError(f"{self.name}: cannot be read as {self.packed or self.kind} ({why}): make or download it again")


def unpack_source(raw: BinaryIO, source: Source) -> BinaryIO:
    """The bytes of a file without its packing, .gz or .zst."""
    if source.packed == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if source.packed == ".zst":
        pyarrow = import_arrow(source.name, ".zst")
        return cast(BinaryIO, io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd"), 1 << 18))
    return raw


def import_arrow(name: str, what: str) -> Any:
    """The module pyarrow, which is imported only where it is needed."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{name}: {what} needs pyarrow: pip install pyarrow (the extra `parquet`)") from None
    return pyarrow


def list_sources(path: str) -> list[Source]:
    """The file, or the files of a folder in the order of their names: one data set in several files of one kind.

    Folders in it are ignored, and so are names that begin with "." or "_", which tools reserve for their own files.
    """
    if path == "-" or not Path(path).is_dir():
        return [Source(path)]
    names = sorted(e.name for e in os.scandir(path) if e.is_file() and not e.name.startswith((".", "_")))
    found = [Source(str(Path(path, name))) for name in names]
    if not found:
        raise UserError(f"{path}: there are no files in this folder")
    if len(kinds := sorted({s.kind for s in found})) > 1:
        shown = ", ".join(kind or "no suffix" for kind in kinds[:6])
        raise UserError(f"{path}: the files of a folder must be of one kind to be one data set, these have {shown}")
    return found
