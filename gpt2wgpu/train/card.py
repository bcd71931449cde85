"""The model card that a checkpoint carries."""

from pathlib import Path

from .settings import BUILT_IN
from .start import Run

LOSSES = {
    "contrastive": "margin contrastive loss on labelled pairs (margin {margin:g})",
    "info_nce": "in-batch softmax on pairs that belong together (temperature {temperature:g})",
    "cosine": "squared difference of cosine and score on rated pairs",
    "distillation": "1 - cosine to a teacher's vectors, and the differences of the matrices of cosines",
}


def card_text(run: Run, steps: int, scores: dict[str, float]) -> str:
    """README.md: what it is, what it learnt from and how, how good it is, how to use it."""
    s, c = run.settings, run.template.checkpoint
    if s.model is None:
        begin = "trained from random weights"
    else:
        begin = f"fine-tuned from {'the built-in model of gpt2wgpu' if s.model == BUILT_IN else Path(s.model).name}"
    files = ", ".join(Path(path).name for path in s.data)
    rows = {
        "shape": f"{c.config.layers} layers, {c.config.heads} heads, width {c.config.width}, {c.config.vocab:,} tokens",
        "data": f"{files}: {len(run.examples):,} {'pairs' if run.examples.group == 2 else 'texts'}",
        "loss": LOSSES[str(s.loss)].format(margin=s.margin, temperature=s.temperature),
        "teacher": Path(s.teacher).name if s.teacher else None,
        "steps": f"{run.step:,} of {steps:,} in {s.epochs} epochs, each {s.accumulate} batch(es) of {s.batch_tokens:,} tokens",
        "AdamW": f"learning rate {s.lr:g}, weight decay {s.weight_decay:g}, clipping {s.clip:g}, dropout {s.dropout:g}",
        "frozen": ", ".join(s.freeze) or None,
        "seed": str(s.seed),
        "device": run.device,
    }
    if s.validation:
        found = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        rows["validation"] = f"{Path(s.validation).name}: {found} (by cosine)"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# A sentence-embedding model

{c.config.title} architecture, {begin} with gpt2wgpu. A sentence-transformers folder.
`training/` is what a resumed run needs, and can be deleted.

| | |
|---|---|
{table}

```python
from gpt2wgpu import Encoder  # or: from sentence_transformers import SentenceTransformer

vectors = Encoder("path/to/this/folder").encode(["The cat is sleeping", "A feline is resting"])
```
"""
