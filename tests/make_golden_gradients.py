"""Write what PyTorch makes of training: gradients of whole models, losses and AdamW, under tests/golden/.

    pip install torch transformers
    python tests/make_golden_gradients.py

Run by hand; what it writes is committed, so the tests need neither package. Everything is computed in float64.

golden/gradients/NAME.npz   of golden/models/NAME with mean pooling and L2 normalisation: the upstream gradient of the
                            vectors ("doutput"), and the gradient of every weight by its name in the graph
golden/losses.npz           vectors, targets; value and gradient of every loss
golden/adamw.npz            weights before and after five steps with clipping, and the gradients given
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

from gpt2wgpu import checkpoint
from gpt2wgpu.graph.tensor import schedule

GOLDEN = Path(__file__).parent / "golden"
MODELS = ("gpt2_prefixed", "gpt2_tanh", "bert", "bert_relu_odd", "distilbert_sinusoids_sharded", "gpt_neo_layer_list")


def write_gradients(name: str) -> None:
    folder = GOLDEN / "models" / name
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # else the row of the padding token, which our ids may hold, gets no gradient
    with np.load(folder / "expected.npz") as expected:
        sequences = np.split(expected["ids"].astype(np.int64), np.cumsum(expected["lengths"])[:-1])
    doutput = np.random.default_rng(0).standard_normal((len(sequences), model.config.hidden_size), np.float32)
    for ids, seed in zip(sequences, doutput, strict=True):
        hidden = model(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0]
        (normalize(hidden.mean(0), dim=0) * torch.from_numpy(seed)).sum().backward()

    # through our reader, as if the gradients were weights: it names, transposes and joins them as the graph has them
    kept = {k: p.grad.float().contiguous() for k, p in model.named_parameters() if p.grad is not None}
    kept |= {k: torch.zeros_like(g) for k, g in kept.items() if "token_type" in k}  # added to the positions, but no part of them
    with tempfile.TemporaryDirectory() as copy:
        (Path(copy) / "config.json").write_bytes((folder / "config.json").read_bytes())
        save_file(kept, Path(copy) / "model.safetensors", metadata={"format": "pt"})
        found = checkpoint.load_checkpoint(Path(copy))
        leaves = [
            t for t in schedule(found.config.hidden(found.config.layers, "f32")) if t.is_weight and t.name not in found.absent()
        ]
        tensors = {t.name: np.array(found.weights(t)) for t in leaves}
    np.savez_compressed(GOLDEN / "gradients" / f"{name}.npz", doutput=doutput, **tensors)


def write_losses() -> None:
    rng = np.random.default_rng(0)
    vectors, teacher = rng.standard_normal((2, 12, 5), np.float32)
    labels, scores = np.array([1, 0, 0, 1, 0, 1]), rng.random(6)
    vectors[3] = vectors[2] + 0.3 * vectors[3]  # of label 0 and near, so that the margin counts
    x = torch.from_numpy(vectors.astype(np.float64)).requires_grad_()
    units = normalize(x, dim=1)
    cosines = (units[::2] * units[1::2]).sum(1)
    positive = torch.from_numpy(labels == 1)
    targets = normalize(torch.from_numpy(teacher.astype(np.float64)), dim=1)
    logits = units[::2] @ units[1::2].T / 0.05
    losses = {
        "contrastive": torch.where(positive, (1 - cosines) ** 2, torch.relu(0.5 - (1 - cosines)) ** 2).mean(),
        "cosine_regression": ((cosines - torch.from_numpy(scores)) ** 2).mean(),
        "info_nce": cross_entropy(logits, torch.arange(6)),
        "distillation": (1 - (units * targets).sum(1)).mean() + 0.7 * ((units @ units.T - targets @ targets.T) ** 2).mean(),
    }
    arrays = {"vectors": vectors, "teacher": teacher, "labels": labels, "scores": scores}
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        arrays |= {f"{name}_loss": loss.detach().numpy(), f"{name}_gradient": gradient.numpy()}
    np.savez_compressed(GOLDEN / "losses.npz", **arrays)


def write_adamw() -> None:
    rng = np.random.default_rng(0)
    arrays = {"matrix": rng.standard_normal((5, 7), np.float32), "vector": rng.standard_normal(7, np.float32)}
    gradients = {f"{k}_gradients": rng.standard_normal((5, *a.shape), np.float32) for k, a in arrays.items()}
    parameters = {k: torch.nn.Parameter(torch.from_numpy(a.astype(np.float64))) for k, a in arrays.items()}
    groups = [{"params": [parameters["matrix"]], "weight_decay": 0.1}, {"params": [parameters["vector"]], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.01)
    norms = []
    for i in range(5):
        for k, p in parameters.items():
            p.grad = torch.from_numpy((10.0**-i * gradients[f"{k}_gradients"][i]).astype(np.float64))
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)))
        optimiser.step()
    after = {f"{k}_after": p.detach().numpy() for k, p in parameters.items()}
    np.savez_compressed(GOLDEN / "adamw.npz", **arrays, **gradients, **after, norms=np.array(norms))


if __name__ == "__main__":
    (GOLDEN / "gradients").mkdir(exist_ok=True)
    for name in MODELS:
        write_gradients(name)
    write_losses()
    write_adamw()
