"""One engine in a process of its own, for peers.py: JSON lines on stdin and stdout.

    python benchmarks/engines.py '{"engine": "torch", "folder": "…", "dtype": "float32", "device": "cpu", …}'

It answers {"ready": …} or {"error": …}; then to {"texts": […], "batch": n, "sample": [rows], "warm_up_s": s} with those
rows of the vectors and the time of its last warm-up, and to {"run": seconds} with the times of as many calls as that takes.
Texts go in and vectors come out: tokenisation and the copy back from a GPU are part of every time.
Runs in the peer's own Python: imports only numpy and what the engine needs.
"""

import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from inputs import MAX_TOKENS, normalizes


class Engine:
    """texts -> vectors, in some library."""

    packages: tuple[str, ...] = ()  # whose versions are reported
    device = "CPU"
    software = False  # a software driver in the place of a GPU
    fixed_shapes = False  # every shape of a batch is compiled on its own: no corpus of mixed lengths
    compiles = False  # its first calls take far longer than those that follow
    warm_ups = 1  # calls after the first one, before anything is timed

    def __init__(self, folder: Path, options: dict) -> None:
        raise NotImplementedError

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        raise NotImplementedError


class Ours(Engine):
    packages = ("wgpu", "numpy")

    def __init__(self, folder, options):
        from gpt2wgpu import Encoder

        if options.get("cores"):
            from gpt2wgpu.graph import cores

            cores.usable_cores = lambda: options["cores"]
        self.encoder = Encoder(folder, device=options["device"], dtype=options["dtype"], max_seq_length=MAX_TOKENS)
        self.device = self.encoder.device
        self.software = bool(self.encoder.engine.place.device and self.encoder.engine.place.device.adapter.software)

    def encode(self, texts, batch):
        return self.encoder.encode(texts)  # packs by tokens, whatever `batch` says


class Padded(Engine):
    """Libraries that take token ids: tokenised by `tokenizers`, longest texts first, in padded batches."""

    def tokenize(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()

    def encode(self, texts, batch):
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = None
        for rows in (order[at : at + batch] for at in range(0, len(order), batch)):
            width = len(ids[rows[0]])
            padded, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
            for line, used, i in zip(padded, mask, rows, strict=True):
                line[: len(ids[i])], used[: len(ids[i])] = ids[i], 1
            found = self.forward(padded, mask)
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            vectors[rows] = found
        return vectors

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Torch(Padded):
    packages = ("torch", "transformers")

    def __init__(self, folder, options):
        import torch
        from transformers import AutoModel

        self.torch, self.where, self.normalize = torch, options["device"], normalizes(folder)
        self.tokenize(folder)
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, options["dtype"])).eval().to(self.where)
        self.options = {"use_cache": False} if model.config.model_type == "gpt2" else {}
        if self.where == "cuda":
            self.device, self.warm_ups = torch.cuda.get_device_name(), 3
        if options.get("compile"):
            model, self.compiles, self.warm_ups = torch.compile(model), True, 3
        self.model = model

    def forward(self, ids, mask):
        torch = self.torch
        with torch.inference_mode():
            ids, mask = torch.from_numpy(ids).to(self.where), torch.from_numpy(mask).to(self.where)
            hidden = self.model(input_ids=ids, attention_mask=mask, **self.options).last_hidden_state.float()
            vectors = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            return (torch.nn.functional.normalize(vectors, dim=1) if self.normalize else vectors).cpu().numpy()


class OnnxRuntime(Padded):
    packages = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-webgpu")

    def __init__(self, folder, options):
        import onnxruntime

        provider = options["provider"]
        if provider not in onnxruntime.get_available_providers():
            raise ImportError(f"this onnxruntime has no {provider}")
        if not (folder / "model.onnx").exists():
            raise RuntimeError("no model.onnx: exporting it takes a Python with torch, transformers and onnx")
        self.tokenize(folder)
        if provider == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # from the nvidia-* packages, where torch brought them
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=[provider])
        if self.session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} did not start; it fell back to {self.session.get_providers()[0]}")
        self.device = provider.removesuffix("ExecutionProvider")

    def forward(self, ids, mask):
        return self.session.run(["vectors"], {"input_ids": ids, "attention_mask": mask})[0]


class SentenceTransformers(Engine):
    packages = ("sentence-transformers", "torch")

    def __init__(self, folder, options):
        import torch
        from sentence_transformers import SentenceTransformer

        kwargs = {"dtype": getattr(torch, options["dtype"])}
        self.model = SentenceTransformer(str(folder), device=options["device"], model_kwargs=kwargs)
        self.model.max_seq_length = MAX_TOKENS
        if options["device"] == "cuda":
            self.device = torch.cuda.get_device_name()

    def encode(self, texts, batch):
        return self.model.encode(texts, batch_size=batch, show_progress_bar=False)


class FastEmbed(Engine):
    packages = ("fastembed", "onnxruntime")

    def __init__(self, folder, options):
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        if not (folder / "model.onnx").exists():
            raise RuntimeError("no model.onnx: exporting it takes a Python with torch, transformers and onnx")
        name = f"benchmark/{folder.name}"
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType.MEAN,
            normalization=normalizes(folder),
            sources=ModelSource(hf=name),
            dim=config.get("hidden_size") or config["n_embd"],
            model_file="model.onnx",
        )
        self.model = TextEmbedding(name, specific_model_path=str(folder), providers=[options["provider"]])

    def encode(self, texts, batch):
        return np.stack([*self.model.embed(texts, batch_size=batch)])


class TinyGrad(Padded):
    packages = ("tinygrad", "dawn-python")
    device, fixed_shapes, compiles, warm_ups = (
        "WebGPU",
        True,
        True,
        3,
    )  # a TinyJit runs, captures, and is fast from the third call on

    def __init__(self, folder, options):
        from tinygrad_peer import Model, find_dawn

        find_dawn()
        self.tokenize(folder)
        self.model = Model(folder, normalizes(folder))

    def forward(self, ids, mask):
        return self.model(ids)  # texts of one length: nothing is masked


ENGINES = {
    "gpt2wgpu": Ours,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "onnxruntime-webgpu": OnnxRuntime,
    "sentence-transformers": SentenceTransformers,
    "fastembed": FastEmbed,
    "tinygrad": TinyGrad,
}


def versions(packages: tuple[str, ...]) -> str:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def peak_mb() -> float | None:
    """The most memory that this process has held, where the system says so."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def timed(engine: Engine, work: dict) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    vectors = engine.encode(work["texts"], work["batch"])
    return vectors, time.perf_counter() - start


def answer(engine: Engine, work: dict, request: dict) -> dict:
    if "texts" in request:
        work.clear()
        work |= request
        start = time.perf_counter()
        vectors, seconds = timed(engine, work)
        first, most = seconds, request["warm_up_s"] * (10 if engine.compiles else 1)
        for _ in range(engine.warm_ups):
            if time.perf_counter() - start > most:
                break
            vectors, seconds = timed(engine, work)
        sample = np.asarray(vectors, np.float32)[request["sample"]]
        return {"vectors": sample.tolist(), "seconds": seconds, "first_s": first, "peak_mb": peak_mb()}
    times = []
    while not times or (sum(times) < request["run"] and len(times) < 200):
        times.append(timed(engine, work)[1])
    return {"times": times}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer

    def say(value: dict) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    options = json.loads(sys.argv[1])
    kind = ENGINES[options["engine"]]
    start = time.perf_counter()
    try:
        engine = kind(Path(options["folder"]), options)
    except ImportError as e:
        return say({"error": f"not installed ({e})"})
    except Exception as e:
        return say({"error": f"did not start: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"})
    ready = {"device": engine.device, "software": engine.software, "fixed_shapes": engine.fixed_shapes}
    say({"ready": ready | {"versions": versions(engine.packages), "load_s": time.perf_counter() - start}})
    work: dict = {}
    for line in sys.stdin:
        try:
            say(answer(engine, work, json.loads(line)))
        except Exception as e:
            say({"error": f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"})


if __name__ == "__main__":
    main()
