"""The tensors in a folder's safetensors files. Headers are read and checked at load, values when they are asked for."""

import errno
import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import UserError, show
from ..graph.ops.blocks import cdiv
from ..graph.ops.quantized import GROUP, dequantize, dequantize_table
from ..graph.tensor import Array
from ..models.fields import LARGEST_FILE, check_regular, is_absent, read_fields

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # what is read; bf16 is the upper half of an f32
INDEX = "model.safetensors.index.json"  # lists the tensors of each file, if there are several files
SCALE = "_scale"  # a tensor called X.weight that is int8 has its scales in X.weight_scale, as in compressed-tensors
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Entry:
    """Where a tensor is stored: bytes start:end of a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


Stamp = tuple[int, int, int]  # a file's inode, size in bytes, and time of last change in nanoseconds


class Tensors:
    """All tensors of a folder's `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.

    Numpy computes with views of the mapped files. If a file is replaced by another of the same name, the old one stays mapped;
    if it is overwritten or truncated, `check_unchanged` refuses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = find_tensors(folder)
        self._stamps = {entry.file: stamp_of(entry.file.stat()) for entry in self.entries.values()}
        self._maps: dict[Path, mmap.mmap] = {}

    def check(self, name: str, shape: tuple[int, ...], because: str, scales: tuple[int, ...] | None = None) -> None:
        """Raise UserError if a tensor is missing, has another shape, or is not floating-point. `because` says who expects it.

        scales: the tensor may also be int8, with scales of this shape beside it.
        """
        if (entry := self.entries.get(name)) is None:
            raise UserError(f"{show(self.folder)}: tensor {name} is missing, expected with shape {list(shape)} ({because})")
        if entry.shape != shape:
            found = f"tensor {name} has shape {show(list(entry.shape))}"
            raise UserError(f"{show(entry.file)}: {found}, expected {list(shape)} ({because})")
        if entry.dtype == "I8" and scales is not None:
            self.check(name + SCALE, scales, f"the scales of {name}, which is I8")
        elif entry.dtype not in FLOATS:
            expected = "F32, F16 or BF16 (not quantised)" if scales is None else "F32, F16, BF16, or I8 with scales"
            raise UserError(f"{show(entry.file)}: tensor {name} is {entry.dtype}, expected {expected}")

    def refuse_others(self, *known: str) -> None:
        """Raise UserError for tensors other than `known`, which nothing would read."""
        if others := sorted(self.entries.keys() - {*known}):
            raise UserError(f"{show(self.folder)}: unexpected tensor {show(others[0])}, expected {' and '.join(known)} only")

    def check_unchanged(self) -> None:
        """Raise UserError if a mapped file was overwritten or truncated since its header was read."""
        for file in self._maps:
            try:
                now = stamp_of(file.stat())
            except OSError:  # deleted: what is mapped stays as it was
                continue
            if now[0] == self._stamps[file][0] and now != self._stamps[file]:
                raise changed_file_error(file)

    def release(self) -> None:
        """Unmap the files. Reading maps them again."""
        self._maps.clear()

    def forget(self) -> None:
        """Give back the memory of pages that were read. Views stay valid: their pages are read again when they are used."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as opened:
                if stamp_of(os.fstat(opened.fileno())) != self._stamps[file]:
                    raise changed_file_error(file)
                self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[file]

    def stored_bytes(self, name: str) -> Array:
        """A tensor as it is stored, a view of the mapped file. Raises UserError if the file changed."""
        entry = self.entries[name]
        try:
            return np.frombuffer(self._map(entry.file), np.uint8)[entry.start : entry.end]
        except OSError as e:
            if e.errno == errno.ENOMEM:
                raise MemoryError from None
            raise changed_file_error(entry.file) from None

    def read_int8(self, name: str) -> tuple[Array, Array]:
        """A checked int8 tensor, a view of the mapped file, and its scales, f32. Raises UserError as `read` does."""
        entry = self.entries[name]
        q = self.stored_bytes(name).view(np.int8).reshape(entry.shape)
        scale = self.read(name + SCALE).astype(np.float32)
        with np.errstate(over="ignore"):
            if not is_finite(scale * np.float32(128)):
                raise UserError(f"{show(entry.file)}: tensor {name}{SCALE} overflows float32: the file is damaged")
        return q, scale

    def read(self, name: str) -> Array:
        """The values of a checked tensor, f32 or f16: a view of the mapped file where possible. Raises UserError
        for NaN or infinity, and if the file changed."""
        entry = self.entries[name]
        if entry.dtype == "I8":
            q, scale = self.read_int8(name)
            return (dequantize_table if scale.shape == scales_shape(q.shape, 1) else dequantize)(q, scale)
        array = self.stored_bytes(name).view(FLOATS[entry.dtype]).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
        elif entry.dtype == "F64":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        array = np.require(array, requirements="A")  # a header of odd length leaves the values unaligned
        if not is_finite(array):
            raise UserError(f"{show(entry.file)}: tensor {name} holds NaN or infinity: training failed or the file is damaged")
        return array


def scales_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of the scales of an int8 tensor whose groups lie along `axis`."""
    return tuple(cdiv(n, GROUP) if i == axis else n for i, n in enumerate(shape))


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns


def changed_file_error(file: Path) -> UserError:
    """The error for a file of weights that is no longer the one whose header was read."""
    return UserError(f"{show(file)} changed while it was in use: load the model again")


def is_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite. A finite sum proves it, so one pass usually suffices."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum(dtype=np.float32)) or np.isfinite(array).all())


def find_tensors(folder: Path) -> dict[str, Entry]:
    """name -> Entry for every tensor of a folder."""
    single, index = folder / "model.safetensors", folder / INDEX
    if not is_absent(single):
        return read_header(single)
    if not is_absent(index):
        return read_shards(index)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:  # the folder is missing or cannot be listed
        names = []
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        found = f"only {show(pickles[0])}, a pickle, which could run code and is never read"
        raise UserError(f"{show(folder)} has {found}: convert it to model.safetensors (save_pretrained of transformers does)")
    raise UserError(f"{show(single)} is missing, and so is {index.name}: the weights are read from there; download them")


def read_shards(index: Path) -> dict[str, Entry]:
    """name -> Entry for every tensor that an index lists."""
    shards: dict[str, dict[str, Entry]] = {}
    entries = {}
    for name, file in read_index(index).items():
        if file not in shards:
            shards[file] = read_header(index.parent / file)
        if name not in shards[file]:
            raise UserError(f"{show(index)}: {show(name)} should be in {show(file)}, which does not hold it: download both again")
        entries[name] = shards[file][name]
    return entries


def read_index(index: Path) -> dict[str, str]:
    """tensor -> file name. Names are not trusted: each must be the plain name of a file next to the index."""
    files = read_fields(index).object("weight_map")
    for name, file in files.items():
        if not isinstance(file, str) or not re.fullmatch(r"[^/\\:]+\.safetensors", file) or not file.isprintable():
            raise UserError(f"{show(index)}: {show(name)} is in {show(file)}, expected a plain name of a .safetensors file")
    return files


def read_header(path: Path) -> dict[str, Entry]:
    """name -> Entry for every tensor of one file, whose header `safe_open` checks: no gaps, no overlaps, nothing past the end."""
    try:
        check_regular(path)
        # opened here first: safe_open takes whatever keeps it from opening a file for a missing file
        with path.open("rb") as file, safe_open(path, framework="np"):
            start = 8 + int.from_bytes(file.read(8), "little")
            if start > LARGEST_FILE:
                raise UserError(f"{show(path)} has a header of {start} bytes, expected at most {LARGEST_FILE}: download it again")
            header = json.loads(file.read(start - 8))
        header.pop("__metadata__", None)
        return {
            name: Entry(path, t["dtype"], tuple(t["shape"]), *(start + offset for offset in t["data_offsets"]))
            for name, t in header.items()
        }
    except FileNotFoundError:
        raise UserError(f"{show(path)} is missing: download it again") from None
    except SafetensorError as e:
        with path.open("rb") as file:
            is_pointer = file.read(16) == b"version https://"
        if is_pointer:
            raise UserError(f"{show(path)} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder") from None
        why = show(str(e).removeprefix("Error while deserializing header: "))
        raise UserError(f"{show(path)} is truncated or not a safetensors file ({why}): download it again") from None
    except MemoryError:  # address space: the file is mapped, not read
        raise UserError(f"{show(path)} is larger than all the memory that this process may use (see ulimit -v)") from None
    except OSError as e:
        raise UserError(f"{show(path)} cannot be read: {e.strerror or 'no access'}") from None
