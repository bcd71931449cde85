"""The house's rules: imports point up, one importer of wgpu, every shader agrees with its op's signature."""

import ast
import itertools
import re
from pathlib import Path

import pytest

import gpt2wgpu
from gpt2wgpu.devices.selftest import forward_cases
from gpt2wgpu.gpu.kernels import SHADERS, read_shader, shader_files
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.ops.grids import ELEMENT_THREADS
from gpt2wgpu.graph.ops.quantized import GROUP
from gpt2wgpu.graph.packing import QUERY_TILE
from gpt2wgpu.graph.tensor import Op, Tensor
from gpt2wgpu.train import ops as train_ops
from gpt2wgpu.train import selftest as train_checks
from gpt2wgpu.train.gpu import CHUNK

PACKAGE = Path(gpt2wgpu.__file__).parent
# each may import what stands above it, and says why it stands there
ORDER = {
    "errors": "every room refuses input in the same way",
    "progress": "every room may say how far it is",
    "background": "native work that a signal need not wait for",
    "graph": "what is computed, and the numpy that defines it",
    "gpu": "the other runner of a graph, the only importer of wgpu",
    "models": "architectures are graphs; they do not know where they run",
    "checkpoint": "a folder becomes a model's configuration, graph and weights",
    "tokenizer": "text becomes token ids; needs a model's folder only",
    "devices": "chooses a runner, and tries its kernels before it is trusted",
    "vectors": "measures of vectors, on a device where there is one",
    "hub": "a name becomes a folder that checkpoint can read",
    "files": "texts come in and vectors go out; knows formats, not models",
    "inputs": "what callers give becomes texts, or is refused everywhere alike",
    "engine": "token ids become vectors; owns the device",
    "outputs": "what a call gives back, in the container that it asks for",
    "compat": "sentence-transformers' keywords, and what to use in place of some",
    "facts": "what an Encoder is, and sentence-transformers' names for it",
    "explain": "follows a text through a model that is open; Encoder.explain calls it",
    "encoder": "the public class: a model and its options",
    "corpus": "an Encoder over files of any size",
    "search": "an Encoder over the passages of files, for one question",
    "analyze": "what vectors say about many texts: alike, in groups, in classes, on a map",
    "evaluation": "what an Encoder's similarities are worth",
    "diagnose": "looks at a model on a device from outside",
    "train": "changes models; inference never imports it",
    "serve": "an Encoder behind HTTP; needs an extra",
    "web": "an Encoder written down for browsers",
    "adapters": "an Encoder in other people's interfaces",
    "cli": "parses and prints; may use everything",
    "__init__": "names of the rooms above, loaded on first use",
    "__main__": "the command line",
}
FLOORS = [*ORDER]
LONGEST = 350  # lines of a file; a longer one is split by theme
SHARED_NAMES = {  # that may be defined in several modules
    "__all__": "Python's own",
    "app": "a command group's Typer application, as in Typer's documentation",
}
MATMULS = ("matmul_registers", "matmul_unrolled", "matmul_workgroup", "matmul_short", "matmul_cooperative")
FORWARD = {name: value for name, value in vars(ops).items() if isinstance(value, Op)}
BACKWARD = {name: value for name, value in vars(train_ops).items() if isinstance(value, Op)}
OPS = FORWARD | BACKWARD
EXTRA = {"square_sum": ("square_sum", "row_sum")}  # kernels of no op that share a file with ops


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The first part, inside the package, of everything a file imports from it, wherever in the file."""
    found = set()
    here = path.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level], *(node.module or "").split(".")]
            base = [part for part in base if part]
            found |= {base[0]} if base else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up(path: Path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    below = [name for name in imported(path) if name in ORDER and FLOORS.index(name) > FLOORS.index(part)]
    assert part in ORDER and (not below or part == "__init__")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_runner_imports_wgpu(path: Path):
    if path.relative_to(PACKAGE).parts[0] != "gpu":
        assert not re.search(r"^\s*(import|from) wgpu", path.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("folder", ["gpt2wgpu", "tests", "benchmarks"])
def test_files_are_small(folder: str):
    files = (Path(__file__).parents[1] / folder).rglob("*.py")
    assert {p.name: n for p in files if (n := len(p.read_text(encoding="utf-8").splitlines())) > LONGEST} == {}


def module_names(path: Path) -> set[str]:
    """The functions, classes and constants that a module defines at its top level."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_no_name_stands_twice():
    """So that a search for a name finds one thing. Type variables, which have one letter, may repeat."""
    places: dict[str, list[str]] = {}
    for path in sources():
        for name in (n for n in module_names(path) - SHARED_NAMES.keys() if len(n) > 1):
            places.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def variants() -> list[tuple[tuple[str, ...], Op]]:
    """The shader files of every op in every variant; the first one declares its bindings."""
    found = {
        shader_files(Tensor((), op=o, dims={"K": k, "N": k, "C": k, "D": 2 * k}, attrs={"head_size": 64}), m): o
        for o in OPS.values()
        for k in (4, 3, 2048)
        for m in MATMULS
    }
    return sorted(found.items())


@pytest.mark.parametrize(("shaders", "o"), variants())
def test_header_matches_signature(shaders: tuple[str, ...], o: Op):
    source = read_shader(shaders[0])
    block = re.search(r"struct Params \{(.*?)\}", source)
    assert block is not None
    fields = re.findall(r"(\w+):", block[1])
    constants = set(re.findall(r"^const (\w+): u32", "\n".join(map(read_shader, shaders)), re.M))
    if shaders == ("attention_cooperative",):
        constants |= {"WINDOW", "KV_HEADS"}  # files() takes it where neither is set
    letters = dict.fromkeys(d.lstrip("0123456789") for _, _, dims in o.args for d in dims if not d.isdigit() and "+" not in d)
    attrs = [a for a in keywords(o) if a.upper() not in constants and a not in letters]
    assert fields == [*letters, *attrs]
    bindings = re.findall(r"@binding\((\d+)\) var<storage, (\w+)> (\w+): array<(.*)>;", source)
    assert [name for _, _, name, _ in bindings] == [name for name, _, _ in o.args]
    assert [int(i) for i, _, _, _ in bindings] == list(range(1, len(o.args) + 1))
    assert [access for _, access, _, _ in bindings] == ["read"] * (len(o.args) - 1) + ["read_write"]
    for (_, _, _, element), (_, dtype, _) in zip(bindings, o.args, strict=True):
        assert re.sub(r"vec[24]<(\w+)>", r"\1", element) == {"i8": "u32"}.get(dtype, dtype)  # four to a u32
    aliases = set(re.findall(r"^alias (\w) = f32;", source, re.M))
    assert aliases == {dtype for _, dtype, _ in o.args if dtype.isupper()}


def keywords(o: Op) -> list[str]:
    code = o.reference.__code__
    return list(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])


def test_every_shader_file_is_used():
    used = {f for shaders, _ in variants() for f in shaders}
    ceilings = (PACKAGE / "gpu" / "ceilings.py").read_text(encoding="utf-8")
    used |= set(re.findall(r'"(ceiling_\w+)"', ceilings))  # kernels of no op
    used |= set(re.findall(r'InPlace\(device, \["(\w+)"', (PACKAGE / "train" / "gpu.py").read_text(encoding="utf-8")))
    assert {p.stem for p in SHADERS.glob("*.wgsl")} == used


def header_of(shader: str) -> str:
    """The comment that a shader begins with."""
    return "\n".join(itertools.takewhile(lambda line: line.startswith("//"), read_shader(shader).splitlines()))


@pytest.mark.parametrize("shader", sorted(p.stem for p in SHADERS.glob("*.wgsl")))
def test_header_says_grid_and_reader(shader: str):
    """What a shader computes, how the grid maps, and where its op is declared, or who uses it."""
    header = header_of(shader)
    where = {o.reference.__module__ for shaders, o in variants() if shaders[0] == shader}
    users = {o.name for shaders, o in variants() if shader in shaders[1:]}
    users |= {name for name in EXTRA if shader in EXTRA[name][1:]}
    assert not header.startswith(("// Grid:", "// Used by", "// Declared in"))
    assert ("// Grid: a" in header) == ("fn main(" in read_shader(shader))
    assert max(map(len, header.splitlines())) <= 130
    if where:
        (module,) = where
        assert f"Declared in {module.removeprefix('gpt2wgpu.').replace('.', '/')}.py." in header
    elif users:
        assert f"// Used by {', '.join(sorted(users))}" in re.sub(r",\n// ", ", ", header)
    else:
        found = re.search(r"Dispatched by (\S+\.py)\.$", header)
        assert found is not None
        assert f'"{shader}"' in (PACKAGE / found[1]).read_text(encoding="utf-8")


def test_names_of_constants_match():
    activations = re.findall(r"^const (\w+): u32 = \d+u;", read_shader("activation"), re.M)
    assert [a.lower() for a in activations] == list(ops.ACTIVATIONS)
    modes = re.findall(r"^const (\w+): u32 = \d+u;", read_shader("pooling_modes"), re.M)
    assert [m.lower() for m in modes] == list(ops.POOLINGS)
    flash = ("flash_forward", "attention_lse_flash", "attention_dqkv_flash")
    for shader in ("softmax_attention", "attention_cooperative", "attention_lse", "attention_dqkv", *flash):
        assert f"const QUERIES: u32 = {QUERY_TILE}u;" in read_shader(shader)
    for shader in ("linear_int8", "linear_int8_scalar", "linear_add_int8", "linear_add_int8_scalar", "embed_int8"):
        assert f"const GROUP: u32 = {GROUP}u;" in read_shader(shader)
    for shader in {shaders[0] for shaders, o in variants() if o.grid.__qualname__.startswith("per_element")}:
        assert f"@workgroup_size({ELEMENT_THREADS})" in read_shader(shader)
    for shader in ("square_sum", "adamw"):
        assert f"const CHUNK: u32 = {CHUNK}u;" in read_shader(shader)


def test_every_op_is_checked():
    assert {case.op.name for case in forward_cases(half=True)} == set(FORWARD)
    assert {case.op.name for case in train_checks.backward_cases()} == set(BACKWARD)
