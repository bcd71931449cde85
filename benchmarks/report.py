"""What peers.py found, as Markdown; and what the machine is."""

import os
import platform
import time
from pathlib import Path
from typing import Any


def processor() -> str:
    """The processor's own name, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1e3:.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def cell(row: dict[str, Any]) -> str:
    """Time, and how many times ours that is; ~ if the calls differed by more than 30 %."""
    noisy = "~" if row["seconds"] > 1.3 * row["fastest_s"] else ""
    return noisy + duration(row["seconds"]) + (f" ({row['ratio']:.2f})" if row["ratio"] is not None else "")


def model_table(result: dict[str, Any], model: str) -> str:
    rows = [r for r in result["rows"] if r["model"] == model]
    names = [*dict.fromkeys(r["workload"] for r in rows)]
    lines = []
    for engine in dict.fromkeys(r["engine"] for r in rows):
        own = {r["workload"]: r for r in rows if r["engine"] == engine}
        error = max(r["relative_error"] for r in own.values())
        memory = max((r["peak_mb"] or 0 for r in own.values()), default=0)
        cells = [cell(own[n]) if n in own else "" for n in names]
        lines.append([engine, next(iter(own.values()))["kind"], *cells, f"{error:.0e}", f"{memory:.0f}" if memory else ""])
    return table(["engine", "on", *names, "error", "peak MB"], lines)


def tables(result: dict[str, Any]) -> str:
    m = result["machine"]
    load = f"load average {m['load']} before" + (f", {m['load_after']} after" if "load_after" in m else "")
    text = f"{m['date']}, {m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}; {load}.\n"
    text += f"WebGPU adapters: {', '.join(result['adapters']) or 'none'}.\n\n"
    text += "Median time, texts in to vectors out; in brackets the ratio to the fastest gpt2wgpu row on the same kind of device\n"
    text += "(above 1: slower than ours). `n × t`: n texts of t tokens each. Error: largest, relative to the numpy path.\n"
    text += "`~`: the median is over 1.3 times the fastest call, so the machine was busy with something else.\n"
    for model in dict.fromkeys(r["model"] for r in result["rows"]):
        text += f"\n### {model}\n\n" + model_table(result, model)
    if result["startup"]:
        rows = [
            [
                r["name"],
                duration(r["seconds"]),
                f"{r['beyond_numpy_s'] * 1e3:.0f} ms beyond numpy" if "beyond_numpy_s" in r else "",
            ]
            for r in result["startup"]
            if "seconds" in r
        ]
        text += "\n### Whole processes\n\n" + table(["command", "median", ""], rows)
    versions = {f"{e['engine']}: {e['versions']}" for e in result["engines"] if "versions" in e}
    reasons = {f"{e['engine']}: {e['error']}" for e in result["engines"] if "error" in e}
    reasons |= {f"{s['model']}, {s['workload']}, {s['engine']}: {s['why']}" for s in result["skipped"]}
    reasons |= {f"{r['name']}: {r['error']}" for r in result["startup"] if "error" in r}
    reasons.add("model2vec: its models are static word vectors of their own, so there is none that both can run")
    text += "\nVersions:\n\n" + "".join(f"- {v}\n" for v in sorted(versions))
    return text + "\nNot run:\n\n" + "".join(f"- {r}\n" for r in sorted(reasons))
