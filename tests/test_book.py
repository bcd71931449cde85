"""The book of kernels: every op has its pages, every exercise's answer runs, and no number of a page is made up."""

import ast
import html
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, open_browser

sys.path.append(str(Path(__file__).parents[1] / "docs"))

from book import exercises, facts, figures, prose, rungs
from book.counting import count_needed, count_operations
from book.wgsl import evaluate, read_constants, shared_bytes
from process import Run

from gpt2wgpu.devices.selftest import Case, case_arrays
from gpt2wgpu.gpu import Device
from gpt2wgpu.gpu.kernels import LONG_K, read_shader
from gpt2wgpu.graph import ops
from gpt2wgpu.graph.ops.quantized import GROUP
from gpt2wgpu.graph.packing import QUERY_TILE

REPOSITORY = Path(__file__).parents[1]
PROSE = sorted((REPOSITORY / "docs" / "book").glob("*/*.md"))
ANSWERED = [path for path in PROSE if not path.stem.endswith("_measured")]
FACTS = {name: facts.gather_facts(op) for name, op in facts.OPS.items()}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a reader makes it."""
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, "-W", "error", str(REPOSITORY / "docs" / "make_book.py"), "the/book"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    made = folder / "the" / "book"
    assert done.stdout == f"{len(list(made.iterdir()))} pages: open the/book/index.html\n"
    return made


# --- the pages


def test_every_op_and_ladder_has_a_page(book: Path):
    wanted = {*facts.OPS, *(f"{name}_ladder" for name in rungs.LADDERS), "index"}
    assert {path.stem for path in book.iterdir()} == wanted
    assert {path.stem for path in (REPOSITORY / "docs" / "book" / "kernels").iterdir()} == facts.OPS.keys()


def test_an_op_without_prose_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(prose, "HERE", tmp_path)
    with pytest.raises(ValueError, match=r"op layer_norm has no page .* write docs/book/kernels/layer_norm\.md"):
        prose.read_kernel_prose("layer_norm")


def test_pages_load_nothing_and_their_links_lead_somewhere(book: Path):
    for path in book.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert not re.search(r"<script|<link|<img|@import|url\(|src=", text), path.name
        for link in re.findall(r'href="([^"]*)"', text):
            file, _, anchor = link.partition("#")
            target = book / file if file else path
            assert target.exists(), f"{path.name}: {link}"
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{path.name}: {link}"


@pytest.mark.parametrize("name", FACTS)
def test_a_page_has_the_sources(name: str, book: Path):
    """The definition and every file of the kernel, as they stand, but for the values that are filled in."""
    text = html.unescape(re.sub(r"<[^>]*>", "", (book / f"{name}.html").read_text(encoding="utf-8")))
    assert facts.numpy_source(FACTS[name]) in text
    assert "".join(FACTS[name].kernel.source.split()) == "".join("".join(source.split()) for _, source in FACTS[name].files)
    for file, source in FACTS[name].files:
        assert f"shaders/{file}.wgsl" in text and source in text
        assert len(source.splitlines()) == len(read_shader(file).strip("\n").splitlines())


def test_registers_are_told_in_units_of_the_gpu(book: Path):
    ladder = (book / "matmul_ladder.html").read_text(encoding="utf-8")
    kernel = (book / "linear.html").read_text(encoding="utf-8")
    for page in (ladder, kernel):
        assert 'href="index.html#registers"' in page
        for cells in (r"Radeon RX 7900 XTX</td><td>\d+ of 32 bits", r"Apple M1</td><td>\d+ of 16 bits</td><td>[\d,]+ threads<"):
            assert re.search(f"<td>{cells}", page), cells
        assert re.search(r"<td>Adreno 730</td><td>\d+ of 4 × 32 bits</td><td>\d+ waves of 128 threads<", page)
        assert re.search(r"<td>Arc A770M</td><td>\d+ of 32 bytes, for a wave</td><td>\d+ threads in a wave<", page)
    told = (REPOSITORY / "docs" / "registers.md").read_text(encoding="utf-8")
    assert "for Apple 256 of 16 bits" in told and "| Adreno 730 | 128 threads | 16 on a core |" in told


def test_the_pages_in_a_browser(book: Path):
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with open_browser() as page:
        for name, width in (("index", 1280), ("index", 400), ("attention", 1280), ("attention", 400), ("softmax_ladder", 400)):
            page.open(book / f"{name}.html", width=width)
            assert page.run("document.documentElement.scrollWidth") == width, f"{name} at {width}"
            shown = page.run("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
            assert shown and min(shown) > 150, f"{name} at {width}: a picture is {min(shown)} wide"
        assert page.problems == []
        assert {address.partition(":")[0] for address in page.requests} == {"file"}


def test_a_folder_is_needed(tmp_path: Path):
    """Whatever is wrong, nothing is written."""
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    for arguments, code, said in (
        ([], 2, "usage: make_book.py [-h] FOLDER\nmake_book.py: error: the following arguments are required: FOLDER\n"),
        (["notes.md"], 1, "error: the book needs a folder, but notes.md is a file\n"),
        (["notes.md/book"], 1, "error: notes.md/book: Not a directory\n"),
        (["--help"], 0, ""),
    ):
        command = [sys.executable, str(REPOSITORY / "docs" / "make_book.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, said), arguments
    assert "usage: make_book.py [-h] FOLDER" in done.stdout
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("notes.md", "mine")]


# --- prose


@pytest.mark.parametrize("path", ANSWERED, ids=lambda p: p.stem)
def test_an_answer_is_right(path: Path, as_on_a_gpu: Device, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exercises, "find_device", lambda: as_on_a_gpu)
    blocks = prose.read_prose(path).blocks
    assert any(isinstance(node, ast.Assert) for block in blocks for node in ast.walk(ast.parse(block))), "nothing is asserted"
    for block in blocks:
        exec(compile(block, str(path), "exec"), {"__name__": path.stem})


def test_shaders_that_exercises_change_can_be_checked(tmp_path: Path, run: Run):
    """`gpt2wgpu doctor --shader FILE` takes them in the place of the file of that name."""
    named = {
        (path.stem, name)
        for path in PROSE
        for name in re.findall(r"doctor --shader (\w+)\.wgsl", path.read_text(encoding="utf-8"))
    }
    assert {("attention", "flash_forward"), ("glu", "glu"), ("layer_norm", "row_sum")} <= named
    assert [(op, name) for op, name in named if name not in FACTS[op].file_names] == []
    right = read_shader("glu")
    changed = right.replace("activate(f32(x[at])) * f32(x[at + p.N])", "activate(f32(x[at + p.N])) * f32(x[at])")
    assert changed != right
    (tmp_path / "glu.wgsl").write_text(changed, encoding="utf-8")
    code, out, _ = run("doctor", "--shader", tmp_path / "glu.wgsl", "--device", "gpu")
    assert code == 1 and "wrong: out[" in out


def test_a_quotation_that_is_no_longer_true_is_refused():
    text = "```quote docs/speed.md\n| matmul f16 without matrix units, 2,048 × 768 × 3,072 | 39 TFLOP/s | 62 % |\n```\n"
    with pytest.raises(ValueError, match=r"docs/speed\.md no longer says: \| matmul f16"):
        prose.check_quotations(Path("a.md"), text)
    prose.check_quotations(Path("a.md"), text.replace("39", "38"))


def test_a_letter_that_nothing_explains_is_refused():
    known = prose.read_kernel_prose("attention")
    with pytest.raises(ValueError, match="attention: nothing says what N is"):
        facts.explain_letters(ops.attention, replace(known, head={"model": "N=3"}))


def test_numbers_of_the_prose():
    """Those that no answer asserts."""
    roof = facts.measured_roof()
    assert (roof.arithmetic / 1e12, round(roof.bandwidth / 1e12, 1), round(roof.arithmetic / roof.bandwidth)) == (62, 2.9, 21)
    assert "const LAZY: f32 = 5.5;" in read_shader("attention_cooperative") and round(np.exp(5.5)) == 245
    flash = read_constants("\n".join(map(read_shader, ("flash_forward", "flash_tile"))))
    each, parts, fours = flash["EACH"], flash["PARTS"], flash["FOURS"]
    assert (flash["LANES"], flash["KEYS"], each, 4 * fours) == (64, 32, 4, 8)
    slices, multiplied = flash["D4"], 4 * each * 4  # of a lane: rows x tokens x columns
    reads = slices * (4 + each) + flash["KEYS"] * (1 + fours)
    assert round((slices * multiplied + flash["KEYS"] * 4 * fours * 4) / reads) == 9 and parts == 8
    assert "132 multiprocessors" in (REPOSITORY / "benchmarks" / "LOG.md").read_text(encoding="utf-8")
    assert constants_of("norm_rotary", "HEADS", "HEAD_LANES") == (4, 16)
    assert constants_of("row_sum", "PARTS") == (8,)
    assert read_shader("layer_norm").count("row_sum(") == 2 and read_shader("rms_norm").count("row_sum(") == 1
    assert read_shader("row_sum").count("workgroupBarrier();") == 2
    assert constants_of("similarity", "THREADS", "PAIRS", "SLICE") == (64, 32, 16)
    assert constants_of("nearest_rows", "LANES", "THREADS", "SEGMENT") == (8, 256, 512)
    assert constants_of("repulsion", "POINTS") == (128,)
    assert constants_of("softmax_attention", "KEYS", "QUERIES", "EACH") == (16, 32, 1)
    assert LONG_K == 1024 and constants_of("k_in_parts", "PARTS") == (4,)
    assert QUERY_TILE == 32 and GROUP == 64


def constants_of(shader: str, *names: str) -> tuple[int, ...]:
    found = read_constants(read_shader(shader))
    return tuple(found[name] for name in names)


# --- facts


@pytest.mark.parametrize("name", FACTS)
def test_the_picture_of_a_grid_covers_the_output_once(name: str):
    found = FACTS[name]
    row_axis, column_axis = figures.grid_axes(found)
    rows, columns = figures.picture_size(found)
    covered = np.zeros((rows, columns), int)
    down, across = figures.row_groups(found, row_axis, rows), figures.column_groups(column_axis, columns)
    for top, bottom in down:
        for left, right in across:
            covered[top:bottom, left:right] += 1
    assert (covered == 1).all()
    assert len(down) * len(across) == np.prod(found.grid)


@pytest.mark.parametrize("name", FACTS)
def test_workgroup_memory_is_what_a_compiler_says(name: str):
    """RADV allocates it in pieces of 512 bytes."""
    said = {row.memory for gpu, _, row in facts.find_registers(FACTS[name]) if gpu.is_radv}
    assert said == {-(-FACTS[name].memory // 512) * 512}


def test_extents_of_workgroups():
    def extents(name: str) -> dict[str, int]:
        return {axis.letter: axis.extent for axis in facts.find_axes(FACTS[name])}

    assert extents("linear") == {"N": 32, "T": 32} and str(FACTS["linear"].tile) == "32x32"
    assert extents("layer_norm") == {"T": 1}
    assert extents("concat") == {"J": 64, "B": 1}
    assert extents("attention") == {"G": 1, "C": 64}
    assert extents("nearest_rows") == {"N": 512, "M": 2}


def test_constants_of_shaders():
    assert read_constants("const A: u32 = B * 2u;\nconst B: u32 = max(3u, 4u) / 2u;\nconst C: bool = A <= 4u;\n") == {
        "A": 4,
        "B": 2,
        "C": True,
    }
    assert evaluate("64u << (u32(D > 64u) + u32(D > 128u))", {"D": 96}) == 128
    arrays = "var<workgroup> a: array<vec4<f32>, N * 2u>;\nvar<workgroup> b: array<f16, 8u>;\n"
    assert shared_bytes(f"const N: u32 = 3u;\n{arrays}") == 6 * 16 + 8 * 2
    with pytest.raises(ValueError, match="need each other: A, B"):
        read_constants("const A: u32 = B;\nconst B: u32 = A;\n")


def test_operations_are_counted():
    def count(case: Case) -> int:
        _, values = case_arrays(case)
        return count_operations(case.op.reference, values, case.attrs)

    texts = (3, 4)
    assert count(Case(ops.linear, {"K": 5, "N": 6}, texts)) == 2 * 7 * 5 * 6 + 7 * 6
    assert count(Case(ops.embed, {"V": 9, "C": 5, "S": 9}, texts)) == 7 * 5
    assert count(Case(ops.concat, {"J": 2, "K": 3}, texts)) == 0
    # mean: a sum and a division; x - mean; squares added up, a division; eps, sqrt, 1 / x; three products and sums
    assert count(Case(ops.layer_norm, {"C": 8}, texts)) == 7 * (8 + 1 + 8 + 2 * 8 + 1 + 3 + 3 * 8)
    assert count(Case(ops.similarity, {"M": 2, "N": 3, "C": 4}, texts, {"metric": "dot"})) == 2 * 2 * 3 * 4


@pytest.mark.parametrize("name", FACTS)
def test_bytes_are_of_what_the_result_depends_on(name: str):
    """A row is counted if another number in it gives another result. Of biases by distance: a column."""
    found = FACTS[name]
    counted = count_needed(found.case, found.values)
    right = found.op.reference(*found.values.values(), **found.case.attrs)
    for argument, array in found.values.items():
        axis = 1 if (name, argument) == ("attention_bias", "bias") else 0
        rows = array.shape[axis]
        if array.dtype == np.uint32 and argument != "targets":  # all of them say which rows are meant
            assert counted[argument] == array.size
            continue
        needed = sum(not np.array_equal(right, change_row(found, argument, axis, i), equal_nan=True) for i in range(rows))
        assert counted[argument] == needed * array.size // rows, argument


def change_row(found: facts.KernelFacts, argument: str, axis: int, row: int) -> np.ndarray:
    """The result with a row of one argument changed: to NaN, if it has floating-point numbers."""
    changed = found.values[argument].copy()
    at = (row,) if axis == 0 else (slice(None), row)
    changed[at] = np.nan if changed.dtype.kind == "f" else changed[at] ^ 1
    return found.op.reference(*(found.values | {argument: changed}).values(), **found.case.attrs)


@pytest.mark.parametrize("mode", ops.POOLINGS)
def test_bytes_of_pooling_are_those_of_pooled_tokens(mode: str):
    case = Case(ops.pool, {"C": 4}, (3, 5), {"mode": mode}, given={"skip": np.array([1, 3], np.uint32)})
    _, values = case_arrays(case)
    right = ops.pool.reference(*values.values(), mode=mode)
    wrong = values["x"].copy()
    needed = 0
    for row in range(8):
        wrong[:] = values["x"]
        wrong[row] = np.nan
        needed += not np.array_equal(right, ops.pool.reference(wrong, values["spans"], values["skip"], mode=mode))
    assert count_needed(case, values)["x"] == 4 * needed


def test_biases_past_the_farthest_token_are_not_counted():
    for causal, columns in ((False, 5), (True, 3)):  # distances -2 to 2
        attributes = {"head_size": 4, "scale": 1.0, "causal": causal}
        case = Case(ops.attention_bias, {"N": 24, "H": 2, "R": 9}, (3, 1), attributes)
        assert count_needed(case, case_arrays(case)[1])["bias"] == 2 * columns


def test_bytes_and_operations_are_of_the_same_tokens(book: Path):
    """Of the model's size: no token is skipped, and a row of a table that several tokens name is read once."""
    pooled = facts.model_facts(FACTS["pool"], prose.read_kernel_prose("pool"))
    work = facts.count_case(pooled)
    assert (work.operations, work.bytes_moved) == (768 * 512, 4 * (512 * 768 + 8 * 768 + 2 * 8 + 8))
    embedded = facts.model_facts(FACTS["embed"], prose.read_kernel_prose("embed"))
    different = len(set(embedded.values["ids"].tolist()))
    moved = facts.count_case(embedded).bytes_moved
    assert 400 < different < 512 and moved == 4 * (2 * 512 + (different + 64 + 512) * 768)
    page = (book / "embed.html").read_text(encoding="utf-8")
    assert f"<td>{moved:,}</td>" in page and f"with {different} different ids and 64 different positions" in page
    kept = [n - skip for n, skip in zip(FACTS["pool"].case.lengths, FACTS["pool"].values["skip"].tolist(), strict=True)]
    assert facts.count_case(FACTS["pool"]).operations == 68 * sum(kept) and sum(kept) < 39
    page = (book / "pool.html").read_text(encoding="utf-8")
    assert "texts of 1, 5, 33 tokens, whose first 0, 3, 12 are skipped," in page and f"{kept[2]} tokens → on 64 lanes" in page


def test_costs_are_those_of_profile():
    for name in ("linear", "attention"):
        work = facts.count_case(FACTS[name])
        assert work.counted
    T, K, N = 39, 36, 68
    linear = facts.count_case(FACTS["linear"])
    assert (linear.operations, linear.bytes_moved) == (2 * T * K * N, 4 * (T * K + K * N + N + T * N))
