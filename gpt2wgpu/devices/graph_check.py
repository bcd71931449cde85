"""Before a device computes a graph, the kernels of that graph have agreed with numpy on it.

Each kernel is tried once, by its own source, on a few hundred numbers. What agreed is kept in selftest.json beside the tiles,
by adapter, driver, WebGPU library and package version, so that a second start tries nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import UserError
from ..gpu import Device, Kernel, adapter_key, default_kernel, distinct_results, read_entries
from ..gpu.device_cache import save_tested, short_digest
from ..gpu.kernels import is_tiled
from ..graph import ops
from ..graph.tensor import Dim, Tensor
from .selftest import Case, Check, check_op

# Tokens of each text in the batches that are tried: several tiles of queries and of rows, none of them full. Each is computed
# by another kernel of a matmul, where a GPU has several (`UNMEASURED` in gpu/tiles.py).
TEXT_LENGTHS = ((1, 70, 17), (1, 4, 2), (1, 130, 17))
LONG_WINDOW = 512  # up to which a text is made long enough for a window of attention to hide whole blocks of keys
# Sizes that no tile divides. Those of a graph are multiples of 4 as a rule, and a kernel may depend on that: see `small_cases`.
SMALL = {"K": 68, "N": 132, "C": 100, "J": 36, "V": 77, "S": 40, "M": 34}
LARGER = {"K": 128, "N": 192, "C": 320}  # multiples of 64, for kernels that depend on that
LONG = {"K": 1028}  # for products that are added up in parts
TIED = ("head_size", "heads", "size")  # attributes that count columns: all sizes but those of tables stay the graph's own
TABLE_ROWS = "VS"

MakeCases = Callable[[Tensor], Sequence[Case]]


def check_graph(device: Device, tensors: Iterable[Tensor], given: MakeCases = lambda t: ()) -> None:
    """Compare the kernels of a graph with numpy that have not agreed with it yet on this adapter.

    given: for a tensor whose inputs cannot be random, cases to choose from, in place of `small_cases`.
    Raises UserError in one line for the first kernel that is wrong; nothing is remembered of it.
    """
    untried = {digest: found for digest, found in graph_kernels(device, tensors).items() if digest not in agreed_kernels(device)}
    new = {}
    for digest, (t, rows) in untried.items():
        case = graph_case(device, t, rows, given(t))
        check = check_op(device, case)
        refuse_wrong(device, check)
        new[digest] = f"{check.name} ({check.shape}) error {check.error:.1e}"
    remember_agreed(device, new)


def refuse_wrong(device: Device, check: Check) -> None:
    """Raises UserError if a check failed."""
    if not check.ok:
        raise UserError(
            f"{device.adapter}: {check.name} ({check.shape}) {check.what}; "
            "update its driver, or use device='numpy' (see `gpt2wgpu doctor`)"
        )


def agreed_kernels(device: Device) -> dict[str, str]:
    """What has agreed with numpy on this adapter, in this process or an earlier one, by digest."""
    if not device.agreed:
        device.agreed.update(read_entries("selftest", adapter_key(device.adapter)), none="the file was read")
    return device.agreed


def remember_agreed(device: Device, new: dict[str, str]) -> None:
    """Keep what agreed, in this process and in the file."""
    if new:
        device.agreed.update(new)
        save_tested(device.adapter, new)


def graph_kernels(device: Device, tensors: Iterable[Tensor]) -> dict[str, tuple[Tensor, int]]:
    """The distinct kernels of a graph by their digests, each with a tensor and the rows T of a batch that it computes."""
    found: dict[str, tuple[Tensor, int]] = {}
    for t in distinct_results(tensors):
        for rows in map(sum, TEXT_LENGTHS if is_tiled(t) else TEXT_LENGTHS[:1]):
            found.setdefault(kernel_digest(device, default_kernel(device, t, rows), t.attrs), (t, rows))
    return found


def kernel_digest(device: Device, chosen: Kernel, attrs: dict[str, Any]) -> str:
    """What a verdict is about: the source, with its types, constants and tile, and the attributes that it gets as numbers."""
    text = f"{chosen.source}\n{sorted(plain_attributes(attrs).items())}\n{device.checked}"
    return short_digest(text)


def plain_attributes(attrs: dict[str, Any]) -> dict[str, Any]:
    """Without those that are sizes of a batch, such as onto="ONTO" in training."""
    return {name: value for name, value in attrs.items() if not (isinstance(value, str) and value.isupper())}


def graph_case(device: Device, t: Tensor, rows: int = sum(TEXT_LENGTHS[0]), given: Sequence[Case] = ()) -> Case:
    """The first of `given`, else of `small_cases`, that runs the very kernel that the graph gets. rows: of a batch of
    TEXT_LENGTHS."""
    wanted = default_kernel(device, t, rows)
    lengths = next(lengths for lengths in TEXT_LENGTHS if sum(lengths) == rows)
    for case in given or small_cases(t, lengths):
        with suppress(ValueError):  # an op's sizes may go together in a way that small ones do not
            if default_kernel(device, case.output(), sum(case.lengths)) is wanted:
                return case
    raise AssertionError(f"{t.op} has another kernel at the graph's own sizes")


def small_cases(t: Tensor, lengths: Sequence[int]) -> Iterator[Case]:
    """Cases of a graph's op with its own attributes and dtypes, and with NaN in the last token: small ones first, at last
    the graph's own sizes."""
    assert t.op is not None
    letters = {letter for _, _, dims in t.op.args[:-1] for dim in dims for letter in dim if letter.isupper()}
    if any(name == "scale" for name, _, _ in t.op.args):
        letters -= {"J"}  # it follows from K or C
    own = {letter: size for letter, size in t.dims.items() if letter in letters and letter not in ("T", "B", "G")}
    if 0 < t.attrs.get("window", 0) <= LONG_WINDOW:
        lengths = (1, 70 + t.attrs["window"], 17)
    shrunk = TABLE_ROWS if any(name in t.attrs for name in TIED) else SMALL
    forward = t.op is getattr(ops, t.op.name, None)  # a gradient of NaN is nobody's
    for table in (SMALL, SMALL | LARGER, SMALL | LONG, {letter: SMALL[letter] for letter in TABLE_ROWS}, {}):
        sizes = {letter: shrink_size(letter, size, table if letter in shrunk else {}) for letter, size in own.items()}
        yield Case(t.op, sizes, lengths, plain_attributes(t.attrs), nan=forward, types=t.types)


def shrink_size(letter: str, size: Dim, table: Mapping[str, int]) -> int:
    """A size of the graph, made as small as the table says; odd where it is no multiple of 4. A symbol becomes a number."""
    if isinstance(size, str):
        return SMALL.get(letter, 36)
    small = table.get(letter, size)
    return size if size <= small else small - (1 if size % 4 and small % 4 == 0 else 0)
