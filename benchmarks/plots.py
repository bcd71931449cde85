"""What peers.py found, as pictures.

pip install matplotlib
python benchmarks/peers.py --models minilm --output results.json
python benchmarks/plots.py results.json --throughput docs/images/throughput.png     the README's picture
python benchmarks/peers.py --sweep --output sweep.json
python benchmarks/plots.py sweep.json               writes sweep-batch.png and sweep-length.png next to it
"""

import argparse
import json
from pathlib import Path
from typing import Any

TOKENS, TEXTS = 24, 8  # of every text in the picture by batch; of every batch in the picture by length
BARS = {
    "gpt2wgpu numpy": ("gpt2wgpu", "#2f6fde"),
    "onnxruntime CPU": ("onnxruntime", "#9aa0a6"),
    "sentence-transformers CPU": ("sentence-transformers", "#d0a24c"),
}


def draw_curves(file: Path, rows: list[dict[str, Any]], by: str, title: str, axis: str) -> None:
    """Tokens per second over `by`, one panel per model, one line per engine."""
    from matplotlib import pyplot

    names = [*dict.fromkeys(r["model"] for r in rows)]
    figure, panels = pyplot.subplots(1, max(1, len(names)), figsize=(1 + 6 * max(1, len(names)), 5), squeeze=False)
    engines = [*dict.fromkeys(r["engine"] for r in rows)]
    for panel, model in zip(panels[0], names, strict=False):
        for i, engine in enumerate(engines):
            points = sorted((r[by], r["tokens_per_s"]) for r in rows if (r["model"], r["engine"]) == (model, engine))
            if points:
                ours = engine.startswith("gpt2wgpu")
                style = {"linewidth": 2.5 if ours else 1.2, "linestyle": "-" if ours else "--", "marker": "o", "markersize": 4}
                panel.plot(*zip(*points, strict=True), label=engine, color=f"C{i % 10}", **style)
        ticks = sorted({r[by] for r in rows if r["model"] == model})
        panel.set(title=model, xlabel=axis, ylabel="tokens/s", xscale="log", yscale="log")
        panel.set_xticks(ticks, labels=[str(t) for t in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle(title)
    save_figure(figure, file)


def draw_throughput(file: Path, result: dict[str, Any], model: str = "all-MiniLM-L6-v2") -> None:
    """Texts per second of each workload, as bars, relative to sentence-transformers."""
    from matplotlib import pyplot

    rows = {(r["workload"], r["engine"]): r["texts_per_s"] for r in result["rows"] if r["model"] == model}
    workloads = [*dict.fromkeys(w for w, _ in rows)]
    figure, panel = pyplot.subplots(figsize=(8, 3.4))
    for i, (engine, (label, color)) in enumerate(BARS.items()):
        relative = [rows[w, engine] / rows[w, "sentence-transformers CPU"] for w in workloads]
        at = [w + (i - 1) * 0.26 for w in range(len(workloads))]
        bars = panel.barh(at, relative, height=0.24, color=color, label=label)
        panel.bar_label(bars, [f"{rows[w, engine]:,.0f} texts/s" for w in workloads], padding=3, fontsize=8)
    panel.set_yticks(range(len(workloads)), [f"{w} tokens" if "×" in w else f"{w} texts" for w in workloads])
    panel.invert_yaxis()
    panel.set_xlim(0, 1.25 * max(rows[w, e] / rows[w, "sentence-transformers CPU"] for w in workloads for e in BARS))
    panel.set_xlabel("texts per second, sentence-transformers = 1")
    machine = result["machine"]
    figure.suptitle(f"{model} on {machine['cores']} cores of a CPU, {machine['date']}", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(BARS), frameon=False)
    save_figure(figure, file)


def save_figure(figure: Any, file: Path) -> None:
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what peers.py --output wrote")
    parser.add_argument("--throughput", type=Path, metavar="FILE.png", help="draw the README's picture instead")
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    result = json.loads(options.results.read_text(encoding="utf-8"))
    if options.throughput is not None:
        return draw_throughput(options.throughput, result)
    rows = result["rows"]
    name = options.results.with_suffix("")
    by_batch = [r for r in rows if r["tokens"] == TOKENS]
    by_length = [r for r in rows if r["texts"] == TEXTS and r["tokens"]]
    draw_curves(Path(f"{name}-batch.png"), by_batch, "texts", f"Throughput by batch, texts of {TOKENS} tokens", "texts in a call")
    title = f"Scaling with length, {TEXTS} texts in a call"
    draw_curves(Path(f"{name}-length.png"), by_length, "tokens", title, "tokens of a text")


if __name__ == "__main__":
    main()
