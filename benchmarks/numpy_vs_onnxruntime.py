"""The numpy path against onnxruntime's CPU provider on GPT-2 small with random weights, f32, all 12 layers, mean-pooled.

    pip install torch transformers onnx onnxruntime      (torch only to export the model)
    python benchmarks/numpy_vs_onnxruntime.py

Both get the same ids, results are compared before anything is timed, and the two take turns.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers

from gpt2wgpu import checkpoint, packing, reference
from gpt2wgpu.sentence import head

WORKLOADS = [(32, 24), (8, 128)]  # texts x tokens
TURNS = 9


class Pooled(torch.nn.Module):
    """The mean over the tokens of a text."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)


def export(folder: Path) -> Path:
    """GPT-2 small as a Hugging Face folder and as ONNX."""
    torch.manual_seed(0)
    model = transformers.GPT2Model(transformers.GPT2Config(attn_implementation="eager")).eval()
    model.save_pretrained(folder)
    ids = torch.randint(0, 50257, (2, 24))
    axes = {"input_ids": {0: "b", 1: "t"}, "attention_mask": {0: "b", 1: "t"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled(model),
            (ids, torch.ones_like(ids)),
            folder / "model.onnx",
            input_names=[*axes],
            output_names=["vectors"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return folder / "model.onnx"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(export(Path(folder)), providers=["CPUExecutionProvider"])
        c = checkpoint.load(Path(folder))
        program = reference.Program(head(c, c.config.layers, "f32", c.modules), c.weights)
        for texts, tokens in WORKLOADS:
            ids = np.random.default_rng(0).integers(c.config.vocab, size=(texts, tokens))
            batch = packing.pack([*ids], [np.arange(tokens)] * texts, [0] * texts)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            ours, theirs = program.submit(batch)(), session.run(None, feed)[0]
            error = np.abs(ours - theirs).max() / np.abs(theirs).max()
            assert error < 1e-5, error
            times: dict[str, list[float]] = {"numpy": [], "onnxruntime": []}
            for _ in range(TURNS):
                for name, run in (
                    ("numpy", lambda b=batch: program.submit(b)()),
                    ("onnxruntime", lambda f=feed: session.run(None, f)),
                ):
                    time.sleep(0.2)  # the other side's threads stop spinning
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
            a, b = (statistics.median(times[name]) * 1e3 for name in times)
            print(
                f"{texts} texts x {tokens} tokens: error {error:.0e}, numpy {a:.0f} ms, onnxruntime {b:.0f} ms, ratio {a / b:.2f}"
            )


if __name__ == "__main__":
    main()
