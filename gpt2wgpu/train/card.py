"""The model card (README.md) of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from ..hub import BUILT_IN_NAME
from ..models import Architecture
from .average import POWER
from .losses import LOSSES
from .settings import TrainSettings


def card_text(
    s: TrainSettings, config: Architecture, *, examples: str, steps: str, device: str, scores: Mapping[str, float]
) -> str:
    """What the model is, what it learnt from and how, how good it is, and how to use it.

    examples: how many there are, such as "60 pairs". steps: how far training is, such as "20 of 30". scores: those of the
    last validation.
    """
    if s.model is None:
        begin = "trained from random weights"
    else:
        begin = f"fine-tuned from {'the built-in model of gpt2wgpu' if s.model == BUILT_IN_NAME else Path(s.model).name}"
    rows = {
        "shape": f"{config.layers} layers, {config.heads} heads, width {config.width}, {config.vocab:,} tokens",
        "data": f"{', '.join(Path(path).name for path in s.data)}: {examples}",
        "weights": ", ".join(f"{weight:g}" for weight in s.weight) or None,
        "hard pairs": Path(s.hard_pairs).name if s.hard_pairs else None,
        "loss": LOSSES[str(s.loss)].format(margin=s.margin, temperature=s.temperature),
        "teacher": Path(s.teacher).name if s.teacher else None,
        "teacher's vectors": ", ".join(Path(path).name for path in s.teacher_vectors) or None,
        "steps": f"{steps} in {s.epochs} epochs, each {s.accumulate} batch(es) of {s.batch_tokens:,} tokens",
        "AdamW": f"learning rate {s.lr:g}, weight decay {s.weight_decay:g}, clipping {s.clip:g}, dropout {s.dropout:g}",
        "average": f"moving average of the weights, decay (1 - 1 / step)^{POWER}" if s.average else None,
        "frozen": ", ".join(s.freeze) or None,
        "seed": str(s.seed),
        "device": device,
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

{config.title} architecture, {begin} with gpt2wgpu. A sentence-transformers folder.
`training/` is what a resumed run needs, and can be deleted.

| | |
|---|---|
{table}

```python
from gpt2wgpu import Encoder  # or: from sentence_transformers import SentenceTransformer

vectors = Encoder("path/to/this/folder").encode(["The cat is sleeping", "A feline is resting"])
```
"""
