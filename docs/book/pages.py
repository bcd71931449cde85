"""The pages of the book: one for each op, two ladders, an index."""

import html
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpt2wgpu.explain.dispatches import show_signature
from gpt2wgpu.graph.tensor import DTYPES, Op, is_type_letter

from . import REPOSITORY
from .facts import (
    OPS,
    KernelFacts,
    count_case,
    explain_letters,
    find_registers,
    gather_facts,
    measured_roof,
    model_facts,
    numpy_source,
)
from .figures import (
    grid_axes,
    grid_picture,
    lanes_picture,
    matmul_picture,
    picture_size,
    scores_picture,
    shows_texts,
    tokens_picture,
)
from .ladder_pages import ladder_page, rung_drawing
from .markup import REGISTER_HEAD, REGISTERS_LINK, code_word, figure, frame, register_cells, show_code, show_markdown, show_table
from .prose import Prose, read_kernel_prose
from .rungs import LADDERS, Ladder
from .wgsl import read_constants

FOLDED = ("activation", "is_nan", "matmul_order", "k_in_one", "pooling_modes", "fours", "ones", "token_lanes", "attention_keys")
SHORT_LINES = 45  # of a definition that stays in view beside its shader


def ops_by_theme() -> dict[str, list[Op]]:
    """The ops by the first sentence of the module that declares them, in the order in which a text meets them."""
    order = ("embedding", "norms", "linear_layers", "activations", "self_attention", "pooling", "nearest_rows", "layout_forces")
    found: dict[str, list[Op]] = {}
    for module in sorted({op.reference.__module__ for op in OPS.values()}, key=lambda m: order.index(m.rpartition(".")[2])):
        theme = re.split(r"[.:]\s", (sys.modules[module].__doc__ or "").strip().replace("\n", " ") + " ")[0]
        mine = [op for op in OPS.values() if op.reference.__module__ == module]
        found[theme] = sorted(mine, key=lambda op: op.reference.__code__.co_firstlineno)
    return found


def write_book(folder: Path) -> list[Path]:
    """Write every page. Raises ValueError if an op has no prose, or if a text is not true any more."""
    order = [op for ops in ops_by_theme().values() for op in ops]
    pages = {f"{op.name}.html": kernel_page(op, order) for op in order}
    pages |= {f"{name}_ladder.html": ladder_page(ladder) for name, ladder in LADDERS.items()}
    pages["index.html"] = index_page()
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        (folder / name).write_text(page, encoding="utf-8")
    return [folder / name for name in pages]


def first_sentence(op: Op) -> str:
    """Of the docstring of its numpy function."""
    told = " ".join((op.reference.__doc__ or "").split()).replace("`", "")
    return re.split(r"(?<=[^.][.])\s(?=[A-Z])", told.replace("et al. ", "et al.\u00a0"))[0]


def kernel_page(op: Op, order: list[Op]) -> str:
    facts, prose = gather_facts(op), read_kernel_prose(op.name)
    at = order.index(op)
    links = [("All kernels", "index.html")]
    links += [(f"← {order[at - 1].name}", f"{order[at - 1].name}.html")] if at else []
    links += [(f"{order[at + 1].name} →", f"{order[at + 1].name}.html")] if at + 1 < len(order) else []
    body = [
        f'<p class="kicker">{html.escape(op.reference.__module__.replace(".", "/"))}.py, shaders/{facts.file_names[0]}.wgsl</p>',
        f"<h1>{op.name}</h1>",
        show_markdown(prose.text),
        "<h2>The declaration, letter by letter</h2>",
        declaration(facts, prose),
        "<h2>The grid</h2>",
        f'<div class="pictures">{"".join(pictures(facts))}</div>',
        "<h2>The definition in numpy, and the kernel in WGSL</h2>",
        sources(facts),
        "<h2>What it costs</h2>",
        costs(facts, model_facts(facts, prose), prose),
        "<h2>Registers, by the compilers</h2>",
        registers(facts),
        "<h2>Exercise</h2>",
        exercise(prose),
    ]
    return frame(f"{op.name} – the book of kernels", "\n".join(body), links)


def declaration(facts: KernelFacts, prose: Prose) -> str:
    """The signature, its arguments with their bindings, its letters."""
    shapes = {name: array.shape for name, array in facts.values.items()} | {facts.op.args[-1].name: facts.shape}
    rows = []
    for i, arg in enumerate(facts.op.args, 1):
        shape, dtype = shapes[arg.name], facts.case.dtype(arg.dtype)
        kind = f"{arg.dtype}: f32 or f16" if is_type_letter(arg.dtype) else dtype
        size = math.prod(shape) * DTYPES[dtype].itemsize
        rows.append([str(i), code_word(arg.name), kind, code_word(", ".join(arg.dims)), " × ".join(map(str, shape)), f"{size:,}"])
    head = ("binding", "argument", "type", "shape", "here", "bytes here")
    fields = ", ".join(name for name, _ in facts.kernel.fields)
    letters = [
        [code_word(letter), html.escape(meaning), str(facts.sizes.get(letter, ""))]
        for letter, meaning in explain_letters(facts.op, prose).items()
    ]
    words = (
        f"“Here” is the first case of the self-test that <code>gpt2wgpu doctor</code> runs: {code_word(case_words(facts))}. "
        f"Binding 0 is the uniform block: {code_word(fields)}. An argument without a type is f32."
    )
    tables = show_table(head, rows) + show_table(("letter", "stands for", "here"), letters)
    signature = show_code(show_signature(facts.op), "python")
    return f'{signature}<p class="soft">{words}</p><div class="split">{tables}</div>'


def case_words(facts: KernelFacts) -> str:
    """The sizes of a case, the lengths of its texts where it has texts, and what its data decide of its cost."""
    words = [w for w in str(facts.case).split() if not w.startswith("T=")]
    if facts.sizes.keys() & {"T", "B"}:
        lengths = facts.case.lengths
        if len(set(lengths)) == 1:
            words.insert(0, f"{len(lengths)} texts of {lengths[0]} tokens,")
        else:
            words.insert(0, f"texts of {', '.join(map(str, lengths))} tokens,")
    if "skip" in facts.values:
        skip = facts.values["skip"].tolist()
        words.insert(1, f"whose first {', '.join(map(str, skip))} are skipped," if any(skip) else "of which none is skipped,")
    named = [f"{len(np.unique(facts.values[n]))} different {n}" for n in ("ids", "positions") if n in facts.values]
    return " ".join([*words, *(["with " + " and ".join(named)] if named else [])])


def pictures(facts: KernelFacts) -> list[str]:
    """The grid, and what is inside of a workgroup where its constants tell."""
    found = [figure(grid_picture(facts), grid_words(facts))]
    constants = read_constants(facts.kernel.source)
    if facts.tile is not None:
        rows, columns = facts.tile.rows, facts.tile.columns
        thread = constants["ROWS_EACH"], 4
        words = (
            f"The first workgroup: its {rows} × {columns} outputs share {rows} rows of x and {columns} columns of the weights, "
        )
        words += "which its threads load together, a slice of k at a time. Violet: the outputs of one thread."
        found.append(figure(matmul_picture((rows, columns), thread, (constants["THREADS_T"], 1)), words))
    if "SLICE" in constants and "QUERIES" in constants:
        words = (
            "The scores of a text of 96 tokens, causal. Orange: what one workgroup goes through, block by block; dashed blocks "
        )
        words += "are masked. Violet: the scores of one thread at a time."
        found.append(figure(scores_picture(constants["QUERIES"], constants["KEYS"], (4, constants["EACH"]), 1), words))
    if "PAIRS" in constants:
        pairs = constants["PAIRS"]
        words = (
            f"The first workgroup: its {pairs} × {pairs} pairs share {pairs} rows of each side, which its threads load together, "
        )
        words += f"{constants['SLICE']} columns at a time. Violet: the pairs of one thread."
        found.append(figure(matmul_picture((pairs, pairs), (4, 4), (1, 1), names=("a", "b, transposed")), words))
    if "TOKEN_LANES" in constants:
        longest, skipped = max(zip(facts.case.lengths, facts.values["skip"].tolist(), strict=True))
        words = f"The lanes of a workgroup, and whether they have tokens of the text of {longest}, whose first {skipped} are "
        words += "skipped. A tree joins what they found."
        lanes = constants["COLUMN_LANES"], constants["TOKEN_LANES"]
        found.append(figure(tokens_picture(*lanes, longest, skipped), words))
    if "HELD" in constants and "LANES" in constants:
        wide = constants["WIDE"]
        words = "The lanes of a workgroup. Lane 0 holds the first group of columns of its row, lane 1 the next one, and so on; "
        words += "those that are dashed have none."
        found.append(figure(lanes_picture(constants["LANES"], facts.sizes["C"] // wide, wide), words))
    return found


def grid_words(facts: KernelFacts) -> str:
    """What the picture shows, in words."""
    x, y, z = facts.grid
    groups, outputs = x * y * z, facts.shape[0] * facts.shape[1]
    threads = groups * facts.threads
    rows, columns = grid_axes(facts)
    what = "The output" if picture_size(facts) == facts.shape else "The scores, of which the output keeps the best"
    parts = [f"{what}, cut into what each of the {x} × {y} workgroups computes; the first one is violet."]
    parts.append(f"A workgroup has {facts.threads} threads: {threads:,} threads for {outputs:,} numbers.")
    if any(
        axis is not None and axis.letter != "G" and axis.groups * axis.extent > facts.sizes[axis.letter]
        for axis in (rows, columns)
    ):
        parts.append("Dashed: places past the edge, whose threads store nothing.")
    if shows_texts(facts):
        parts.append("The bars at the left are the texts, which lie end to end on one axis.")
    if facts.memory:
        parts.append(f"Its threads share {facts.memory:,} bytes of workgroup memory.")
    return " ".join(parts)


def sources(facts: KernelFacts) -> str:
    files, defined = [], numpy_source(facts)
    kind = "stays" if defined.count("\n") < SHORT_LINES else "long"
    for name, text in facts.files:
        shown = show_code(text, "wgsl")
        if name in FOLDED:
            files.append(f"<details><summary>shaders/{name}.wgsl</summary>{shown}</details>")
        else:
            files.append(f"<h4>shaders/{name}.wgsl</h4>{shown}")
    return (
        "<p>The numpy function is the definition: the kernel is right if it agrees with it. The shader is the one that a GPU "
        "gets for the case above before anything is measured, with types and constants filled in.</p>"
        f'<div class="sides"><div class="{kind}"><h4>numpy</h4>{show_code(defined, "python")}</div>'
        f"<div>{''.join(files)}</div></div>"
    )


def costs(here: KernelFacts, model: KernelFacts, prose: Prose) -> str:
    """Bytes, operations and the least time of two cases."""
    rows: dict[str, list[str]] = {}

    def add(name: str, value: str) -> None:
        rows.setdefault(name, []).append(value)

    for facts in (here, model):
        work, (x, y, z) = count_case(facts), facts.grid
        add("sizes", html.escape(case_words(facts)))
        add("workgroups × threads", f"{x * y * z:,} × {facts.threads}")
        add("bytes read and written, at least", f"{work.bytes_moved:,.0f}")
        add("floating-point operations", f"{work.operations:,.0f}")
        add("operations per byte", f"{work.operations / work.bytes_moved:.2f}")
        seconds, limit = measured_roof().seconds(work)
        add("least time on an H100", f"{seconds * 1e6:.3g} µs, by {limit}")
    counted = (
        "Operations are those of matrix products, as <code>gpt2wgpu profile</code> counts them."
        if count_case(here).counted
        else "Operations were counted while the numpy function ran: one for each result of a sum, a product, an exp and the like."
    )
    roof = measured_roof()
    head = ("", "in the self-test", html.escape(prose.head["named"]))
    table = show_table(head, [[name, *values] for name, values in rows.items()], numbers=True)
    words = (
        "Bytes are those of the output and of every number that it depends on, each counted once: of a table only the rows that "
        "some token names, of a text only the tokens that are pooled. "
        f"{counted} The least time is what its bytes take at {roof.bandwidth / 1e9:,.0f} GB/s, or its operations at "
        f"{roof.arithmetic / 1e12:.0f} TFLOP/s, whichever is longer: the ceilings measured on an H100 (docs/speed.md). "
        "It is a floor, not a measurement of this kernel."
    )
    return f'{table}<p class="soft">{words}</p>'


def registers(facts: KernelFacts) -> str:
    rows = []
    for gpu, compiler, row in find_registers(facts):
        cells = [*register_cells(gpu, row), row.memory, row.spilled or "none", html.escape(compiler)]
        rows.append(["–" if cell is None else str(cell) for cell in cells])
    head = (*REGISTER_HEAD, "workgroup memory", "spills", "compiled by")
    words = (
        "From the tables of <code>tests/gpu_compilers</code>, which <code>bash tests/registers</code> writes and checks, without "
        f"a GPU: {REGISTERS_LINK}. A GPU that is not named here has not compiled this kernel."
    )
    return f'{show_table(head, rows)}<p class="soft">{words}</p>'


def exercise(prose: Prose) -> str:
    return (
        f'<div class="exercise">{show_markdown(prose.exercise)}<details><summary>Answer</summary>{show_markdown(prose.answer)}'
        "</details></div>"
    )


def index_page() -> str:
    """Cards of all kernels by theme, and of the ladders."""
    parts = [
        '<p class="kicker">gpt2wgpu</p><h1>The book of kernels</h1>',
        show_markdown((REPOSITORY / "docs" / "book" / "introduction.md").read_text(encoding="utf-8")),
        '<h2 id="ladders">Two ladders</h2>',
        cards({f"{name}_ladder.html": ladder_card(ladder) for name, ladder in LADDERS.items()}),
    ]
    for theme, ops in ops_by_theme().items():
        parts.append(f"<h2>{html.escape(theme)}</h2>")
        parts.append(
            cards({f"{op.name}.html": (op.name, first_sentence(op), grid_picture(gather_facts(op), words=False)) for op in ops})
        )
    parts.append('<h2 id="registers">Registers and waves</h2>')
    parts.append(show_markdown((REPOSITORY / "docs" / "book" / "registers.md").read_text(encoding="utf-8")))
    return frame("The book of kernels", "\n".join(parts), [])


def ladder_card(ladder: Ladder) -> tuple[str, str, str]:
    """Its title, its rungs, and the picture of the last but one."""
    rung = ladder.rungs[-2]
    names = ", ".join(r.name for r in ladder.rungs)
    return ladder.title, f"{len(ladder.rungs)} rungs: {names}", rung_drawing(ladder, rung)


def cards(entries: Mapping[str, tuple[str, str, str]]) -> str:
    shown = [
        f'<a href="{file}"><b>{html.escape(name)}</b><p>{html.escape(words)}</p>{picture}</a>'
        for file, (name, words, picture) in entries.items()
    ]
    return f'<div class="cards">{"".join(shown)}</div>'
