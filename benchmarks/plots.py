"""What peers.py --sweep found, as two pictures: throughput by batch, and how it scales with the length of the texts.

pip install matplotlib
python benchmarks/peers.py --sweep --output results.json
python benchmarks/plots.py results.json             writes results-batch.png and results-length.png beside it
"""

import argparse
import json
from pathlib import Path
from typing import Any

TOKENS, TEXTS = 24, 8  # of every text of the first picture; of every batch of the second


def draw(file: Path, rows: list[dict[str, Any]], by: str, title: str, axis: str) -> None:
    """Tokens per second over `by`, one picture per model side by side, one line per engine."""
    import matplotlib

    matplotlib.use("Agg")
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
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what peers.py --output wrote")
    options = parser.parse_args()
    rows = json.loads(options.results.read_text(encoding="utf-8"))["rows"]
    name = options.results.with_suffix("")
    by_batch = [r for r in rows if r["tokens"] == TOKENS]
    by_length = [r for r in rows if r["texts"] == TEXTS and r["tokens"]]
    draw(Path(f"{name}-batch.png"), by_batch, "texts", f"Throughput by batch, texts of {TOKENS} tokens", "texts in a call")
    draw(Path(f"{name}-length.png"), by_length, "tokens", f"Scaling with length, {TEXTS} texts in a call", "tokens of a text")


if __name__ == "__main__":
    main()
