"""What the answers of the book run: a kernel whose text was changed, against numpy, on this machine's GPU or software driver."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from gpt2wgpu.devices.selftest import Check, compare_results, run_numpy, stated_tolerance
from gpt2wgpu.gpu import Device, choose_adapter, open_device
from gpt2wgpu.graph.tensor import Array

from .facts import OPS, case_facts, gather_facts
from .rungs import compile_source


@cache
def find_device() -> Device:
    """The GPU of this machine, else a software driver, with the kernels that a GPU gets. Raises UserError if there is none."""
    adapter = choose_adapter("gpu")
    assert adapter is not None
    return open_device(replace(adapter, kind="DiscreteGPU"), checked=True)


def change_kernel(
    name: str, old: str, new: str, lengths: Sequence[int] = (), given: Mapping[str, Array] | None = None, count: int = -1
) -> Check:
    """A kernel against numpy after `old` became `new` in its text, `count` times at most (-1: everywhere).

    lengths: of the texts, if they are not those of the self-test. given: inputs that are not random.
    Raises ValueError if the kernel's text does not have `old`.
    """
    case = gather_facts(OPS[name]).case
    facts = case_facts(replace(case, lengths=tuple(lengths) or case.lengths, given={**case.given, **(given or {})}))
    if old not in facts.kernel.source:
        raise ValueError(f"the kernel of {name} has no {old!r}")
    source = facts.kernel.source.replace(old, new, count)
    program = compile_source(find_device(), facts.case, facts.output, facts.values, source, facts.tile)
    found = program.run(facts.values)
    program.close()
    wanted = run_numpy(facts.output, facts.values)
    return compare_results(name, str(facts.case), wanted, found, stated_tolerance(find_device(), facts.output))
