"""A ladder as a page: its rungs with a picture, what each loads, its source, and the figures of benchmarks/LOG.md."""

import html
import re
from dataclasses import dataclass

from gpu_compilers.gpus import BY_HAND, IN_CI
from gpu_compilers.tables import read_table

from gpt2wgpu.devices.selftest import case_arrays

from . import HERE, REPOSITORY
from .figures import bar_chart, matmul_picture, scores_picture
from .markup import REGISTER_HEAD, REGISTERS_LINK, figure, frame, register_cells, show_code, show_markdown, show_table
from .prose import Prose, check_quotations, read_prose
from .rungs import MATMUL, Ladder, Rung, block_keys, matmul_bytes, read_rung, softmax_bytes, softmax_operations
from .wgsl import count_threads, read_constants, shared_bytes

ENTRY = "the ladders of the book"  # in the headings of the log that a page shows


@dataclass(frozen=True)
class Measured:
    """One table of the log: its entry's heading and first paragraph, the case, and its rows by rung, as they stand there."""

    entry: str
    about: str
    case: str
    head: list[str]
    rows: dict[str, list[str]]


def read_measurements(ladder: Ladder) -> list[Measured]:
    """The figures of a ladder in benchmarks/LOG.md, newest first."""
    log = (REPOSITORY / "benchmarks" / "LOG.md").read_text(encoding="utf-8")
    found = []
    for heading, text in re.findall(rf"^## ([^\n]*{ENTRY}[^\n]*)\n(.*?)(?=^## |\Z)", log, re.M | re.S):
        for case, table in re.findall(rf"^{ladder.name}, (.*):\n\n((?:\|.*\n)+)", text, re.M):
            head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
            found.append(Measured(heading, text.strip().split("\n\n")[0], case, head, {row[0]: row for row in rows}))
    return found


def read_ladder_prose(ladder: Ladder) -> tuple[Prose, str, dict[str, str]]:
    """The prose of a ladder, its introduction, and the text of each rung. Raises ValueError if a rung has none."""
    prose = read_prose(HERE / "ladders" / f"{ladder.name}.md")
    introduction, *parts = re.split(r"^### (.*)\n", prose.text, flags=re.M)
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    names = [rung.name for rung in ladder.rungs]
    if list(texts) != names:
        raise ValueError(f"{prose.path.name}: expected a heading ### for each rung: {', '.join(names)}; found {', '.join(texts)}")
    return prose, introduction, texts


def ladder_page(ladder: Ladder) -> str:
    prose, introduction, texts = read_ladder_prose(ladder)
    body = [
        f'<p class="kicker">A ladder of {len(ladder.rungs)} rungs; each computes <code>{ladder.op.name}</code></p>',
        f"<h1>{html.escape(ladder.title)}</h1>",
        show_markdown(introduction),
        overview(ladder),
    ]
    for i, rung in enumerate(ladder.rungs, 1):
        body.append(f'<h2 id="rung{i}">{i}. {html.escape(rung.name)}</h2>')
        words = show_markdown(texts[rung.name]) + compiled_words(rung)
        body.append(f'<div class="split"><div>{words}</div>{rung_picture(ladder, rung)}</div>')
        body.append(rung_source(rung))
    body += ["<h2>Measured</h2>", measurements(ladder, prose)]
    body += ["<h2>Exercise</h2>", '<div class="exercise">', show_markdown(prose.exercise)]
    body += [f"<details><summary>Answer</summary>{show_markdown(prose.answer)}</details></div>"]
    links = [("All kernels", "index.html"), (f"{ladder.op.name}: the kernel", f"{ladder.op.name}.html")]
    return frame(f"{ladder.title} – the book of kernels", "\n".join(body), links)


def overview(ladder: Ladder) -> str:
    """What each rung loads and computes, from its constants."""
    matmul = ladder is MATMUL
    rows = []
    for i, rung in enumerate(ladder.rungs, 1):
        text = rung.source(case_arrays(ladder.small)[0])
        if matmul:
            size = ladder.large.sizes["K"]
            loaded, operations, shared = matmul_bytes(rung, size), 2.0 * size, f"{rung.shared[0]} × {rung.shared[1]}"
        else:
            size = ladder.small.attrs["head_size"]
            loaded, operations, shared = softmax_bytes(rung, size), softmax_operations(rung, size), f"{rung.shared[0]}"
        row = [f'<a href="#rung{i}">{i}. {html.escape(rung.name)}</a>', shared, f"{loaded:,.0f}", f"{operations:,.0f}"]
        rows.append([*row, f"{operations / loaded:.2f}", str(count_threads(text)), f"{shared_bytes(text):,}"])
    per = "output" if matmul else "query and key"
    head = ("rung", f"{'outputs' if matmul else 'queries'} sharing a load", f"bytes loaded per {per}")
    head += (f"operations per {per}", "operations per byte", "threads a workgroup", "bytes of workgroup memory")
    what = f"K = {ladder.large.sizes['K']}" if matmul else f"heads of {ladder.small.attrs['head_size']} columns"
    return show_table(head, rows, numbers=True) + (
        f'<p class="soft">Computed from the constants of each shader, for {what}. Bytes are those that threads ask memory for; '
        "what a cache answers is among them.</p>"
    )


def rung_drawing(ladder: Ladder, rung: Rung) -> str:
    if ladder is MATMUL:
        constants = read_constants(rung.source(case_arrays(ladder.small)[0]))
        spread = constants.get("THREADS_T", 1), constants.get("THREADS_N", 1)
        return matmul_picture(rung.shared, rung.thread, spread, "subgroup" if rung.half else "thread")
    own = (1, block_keys(rung)) if rung.made_by == "softmax_attention" else rung.thread
    return scores_picture(rung.shared[0], block_keys(rung), own, count_passes(rung))


def count_passes(rung: Rung) -> int:
    """The loops over keys in a rung of softmax that has a thread for each query: three, or one."""
    return max(1, read_rung(rung.made_by).count("for (var key = "))


def rung_picture(ladder: Ladder, rung: Rung) -> str:
    owner = "subgroup" if rung.half else "thread"
    if ladder is MATMUL:
        words = f"Orange: what is loaded from memory for the {rung.shared[0]} × {rung.shared[1]} outputs that share it. "
        words += f"Violet: the outputs of one {owner}."
    elif rung.shared[0] == 1:
        arrows = "Each arrow is a pass" if count_passes(rung) > 1 else "The arrow is the pass"
        words = f"The scores of a text, causal; a row is a query. {arrows} of one thread over the keys that its query sees."
    else:
        words = "The scores of a text, causal; a row is a query. Orange: what one workgroup goes through, block by block; "
        words += f"dashed blocks are masked. Violet: the scores of one {owner} at a time."
    return figure(rung_drawing(ladder, rung), words)


def rung_source(rung: Rung) -> str:
    """The file that makes the rung, and the names of the others."""
    own = (HERE / "rungs" / f"{rung.made_by}.wgsl").exists()
    place = f"docs/book/rungs/{rung.made_by}.wgsl" if own else f"shaders/{rung.made_by}.wgsl"
    others = ", ".join(f for f in rung.files if f != rung.made_by)
    shown = show_code(read_rung(rung.made_by).strip(), "wgsl")
    after = f'<p class="soft">With {html.escape(others)}.</p>' if others else ""
    return f"<details><summary>The kernel: <code>{place}</code></summary>{shown}{after}</details>"


def compiled_words(rung: Rung) -> str:
    """Registers and waves of a rung whose kernel is in the tables of tests/gpu_compilers."""
    found = [(gpu, read_table(gpu.name).rows.get(rung.compiled)) for gpu in (*IN_CI, *BY_HAND)]
    rows = [register_cells(gpu, row) for gpu, row in found if row is not None]
    if not rows:
        return ""
    return f'<p class="soft">What compilers made of it ({REGISTERS_LINK}):</p>{show_table(REGISTER_HEAD, rows)}'


def measurements(ladder: Ladder, prose: Prose) -> str:
    """The tables of the log with bars, then what the prose says was measured elsewhere, and what was not."""
    parts = []
    for found in read_measurements(ladder):
        bars = [(name, float(row[2]), f"{row[2]} GFLOP/s") for name, row in found.rows.items() if re.fullmatch(r"[\d.]+", row[2])]
        rows = [[html.escape(cell) for cell in row] for row in found.rows.values()]
        table = show_table(found.head, rows, numbers=True)
        parts.append(f"<h3>{html.escape(found.entry)}</h3>{show_markdown(found.about)}<p>{html.escape(found.case)}:</p>")
        parts.append(f'<div class="split">{figure(bar_chart(bars), "GFLOP/s; longer is faster")}{table}</div>')
    return "".join(parts) + show_markdown(elsewhere(prose))


def elsewhere(prose: Prose) -> str:
    """The paragraph of a ladder's prose on other devices, in a file beside it."""
    path = prose.path.with_name(f"{prose.path.stem}_measured.md")
    text = path.read_text(encoding="utf-8")
    check_quotations(path, text)
    return text
