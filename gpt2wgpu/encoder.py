"""Text in, vectors out: `Encoder(model).encode(texts)`."""

import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, hub
from .checkpoint import Dense, Pooling
from .checkpoint.graph import build_graph, choose_modules, concat_layers, default_layer
from .checkpoint.prompts import family_prompts, find_prompt, first_prompt, model_names, reminder
from .devices.choose import device_kind, enough_memory, find_device, find_dtype, find_matmul, find_operand_dtype
from .engine import EncodeOptions, Engine
from .errors import UserError, between
from .graph import memory, packing, reference
from .graph.int8 import quantize_weights
from .graph.tensor import Array, Tensor
from .tokenizer import Tokenizer
from .vectors import pairwise

MAX_SEQUENCES = 1024  # per batch
MAX_TOKENS = {"gpu": 16384, "software": 2048, "numpy": 2048}  # per batch
LONG = 8192  # tokens of a text that a device has room for, whatever max_tokens is; more if max_seq_length asks for it


class Encoder:
    """A model on a device, ready to turn texts into vectors.

    model: a folder in Hugging Face or sentence-transformers layout, or the name of a model on the hub ("org/name"; a bare
        name means sentence-transformers/name, except for the likes of "gpt2"); None for the built-in model.
    device: "auto" (a GPU if there is one, else numpy; the environment variable GPT2WGPU_DEVICE comes first), "numpy",
        "gpu" (a software adapter if need be), or an adapter's number or part of its name.
    dtype: of weights and matmul operands; everything else is float32. "float32", "float16", or "auto": float16 on a GPU
        that can, float32 on software adapters, which are slower with it, and in numpy. "int8": the weights of linear layers
        and the vocabulary table in a quarter of float32's memory, anywhere; all else as with "auto".
    layer: take the hidden state after this block (0: the embeddings), as `hidden_states[layer]` of `transformers`; only
        these blocks are loaded and run. Default: the last one; for a GPT-2 checkpoint that is no sentence-transformers
        folder 7/12 of the depth, where the middle layers hold most meaning.
    pooling: one of "mean", "cls", "max", "last", "weighted_mean", "sqrt_len_mean". Default: what the folder
        says; else "last" for a decoder (a class that ends in ForCausalLM in its config.json), "mean" for others.
    max_tokens: token budget of a batch. It bounds memory and never changes a vector on a GPU.
    max_seq_length: tokens of a text that are read, special ones included. Default: what the folder says.
    prompts, default_prompt_name, truncate_dim, similarity_fn_name: as in sentence-transformers; default: what the folder says,
        and where it has no prompts, those that the model's family is known to expect (`prompts.py`).
    revision, token, cache_folder, local_files_only: of a model on the hub, as in sentence-transformers. A model in the cache
        is taken as it is, without the network.

    Raises UserError if the model or the device cannot be used. One encoder may be shared by threads.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str | int | None = "auto",
        dtype: str = "auto",
        layer: int | None = None,
        pooling: str | None = None,
        max_tokens: int | None = None,
        max_seq_length: int | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        similarity_fn_name: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.model = "built-in" if model is None else str(model)
        folder = hub.find_model(
            model, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        self.checkpoint = c = checkpoint.load_checkpoint(folder)
        self.layers = c.config.layers
        self.layer = default_layer(c) if layer is None else between("layer", layer, 0, self.layers)
        self.pooling = pooling
        self.modules = choose_modules(c, pooling)
        own = any(c.prompts.values())  # sentence-transformers saves empty ones for want of any
        expected = {} if own else family_prompts(model_names(self.model, c))
        self.prompts = {**(expected or c.prompts), **(prompts or {})}
        self.default_prompt_name = default_prompt_name or c.default_prompt_name
        self._remind = bool(expected) and prompts is None and self.default_prompt_name is None
        self.similarity_fn_name = similarity_fn_name or c.similarity_fn_name
        if self.similarity_fn_name not in pairwise.SIMILARITIES:
            raise UserError(
                f"similarity_fn_name must be one of {', '.join(pairwise.SIMILARITIES)}, not {self.similarity_fn_name!r}"
            )
        find_prompt(self.prompts, None, None, self.default_prompt_name)  # refuses an unknown default
        self.tokenizer = Tokenizer(c.folder, kind=c.config.tokenizer, vocab=c.config.vocab, lower_case=c.lower_case)
        self.context = c.config.usable_length
        self._max_seq_length = c.max_seq_length
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

        self.opened_device, self.device_reason = find_device(device)
        self.dtype = find_dtype(dtype, self.opened_device)
        self.opened_device, self.matmul = find_matmul(self.opened_device, self.dtype)
        output = self._graph(self.layer)
        self.width = int(output.shape[1])
        self.truncate_dim = c.truncate_dim if truncate_dim is None else truncate_dim
        if self.truncate_dim is not None:
            between("truncate_dim", self.truncate_dim, 1, self.width)
        budget = MAX_TOKENS[device_kind(self.opened_device)]
        self.max_tokens = budget if max_tokens is None else between("max_tokens", max_tokens, 1, 1 << 24)
        self._room = self.context  # tokens of the longest text that can be computed
        self._limited = False  # that being all that the device can
        longest = min(self.max_seq_length, LONG) if max_seq_length is None else max_seq_length
        self._program = self._compile(output, max(self.max_tokens, longest))
        where = f"{self.device}, {self.dtype}"
        self._engine = Engine(
            self._program,
            self.tokenizer,
            self.width,
            c.config.pad,
            self.max_tokens,
            self._room,
            self._limited,
            where,
            self.dtype != "float32",
            self._too_large,
        )

    def _graph(self, layer: int) -> Tensor:
        """Texts' tokens to the vectors of a layer."""
        return build_graph(
            self.checkpoint, layer, find_operand_dtype(self.dtype, self.opened_device), self.modules, int8=self.dtype == "int8"
        )

    def _compile(self, output: Tensor, tokens: int) -> Any:
        weights = quantize_weights(self.checkpoint.weights) if self.dtype == "int8" else self.checkpoint.weights
        device, wanted = self.opened_device, min(tokens, self.context)
        if device is not None:
            from .devices.loop_limit import longest_text
            from .gpu import GPUProgram, fitting_tokens

            tokens = fitting_tokens(device, output, tokens)
            self.max_tokens = min(self.max_tokens, tokens)
        else:
            tokens = min(tokens, max(self.max_tokens, LONG))  # an estimate: numpy takes what a batch needs
        sequences = min(tokens, MAX_SEQUENCES)
        capacity = {"T": tokens, "B": sequences, "G": packing.max_tiles(tokens, sequences)}
        self._need = memory.memory_needed(output, capacity)
        room = memory.available_memory() if device is None or device.adapter.uses_main_memory else None
        if room is not None and self._need.total > room:
            raise self._too_large(f"this machine has {memory.readable_bytes(room)} free")
        with enough_memory(self._too_large):
            if device is None:
                return reference.NumpyProgram(output, weights)
            self._room = longest_text(device, output, min(tokens, self.context))
            self._limited = self._room < wanted
            return GPUProgram(device, output, weights, capacity)

    def _too_large(self, room: str) -> UserError:
        half = self.opened_device is not None and self.opened_device.half
        room, shorter = room.format(device=self.device), self.max_tokens > self.max_seq_length
        return memory.too_large_error(self.model, self._need, self.dtype, room, half=half, shorter=shorter)

    def with_layers(self, layers: Sequence[int]) -> "Encoder":
        """This encoder, but for its vectors: those of several layers side by side, uncut, (n, layers x C) from one pass."""
        other = copy(self)
        output = concat_layers([self._graph(layer) for layer in layers])
        other.width, other.truncate_dim = int(output.shape[1]), None
        other._program = other._compile(output, max(self.max_tokens, self._room))
        changes = {"program": other._program, "width": other.width, "max_tokens": other.max_tokens}
        changes |= {"room": other._room, "limited": other._limited}
        other._engine = replace(self._engine, **changes, too_large=other._too_large)
        return other

    @property
    def device(self) -> str:
        """Where it computes: "numpy", or the adapter."""
        return "numpy" if self.opened_device is None else str(self.opened_device.adapter)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self.truncate_dim or self.width

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read, special ones included; what is longer is cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self._max_seq_length = between("max_seq_length", tokens, 1, self.context)

    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        truncate: bool = True,
    ) -> Array:
        """Vectors of texts, float32 (n, C) in the order given; a lone string gives (C,), no texts give (0, C).

        prompt, or the one named prompt_name, or the default one, is put before each text.
        batch_size: most texts in a batch; without it the token budget alone decides.
        truncate: texts over `max_seq_length` tokens are cut, and a UserWarning counts them; False refuses them.
        truncate_dim: keep the first dimensions only. normalize_embeddings: to length 1, after that.

        Empty text is encoded as its special tokens, in a model without them (GPT-2) as <|endoftext|>.
        Raises UserError naming the text that cannot be encoded or whose vector is not finite.
        """
        texts = [inputs] if isinstance(inputs, str) else inputs
        rows = self.encode_stream(
            texts,
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            truncate=truncate,
        )
        if isinstance(inputs, str):
            return next(iter([*rows]))
        first = next(rows, None)
        if first is None:
            return np.empty((0, truncate_dim or self.dimensions), np.float32)
        if isinstance(texts, Sized):
            vectors = np.empty((len(texts), len(first)), np.float32)
            for i, row in zip(range(len(texts)), chain([first], rows), strict=True):
                vectors[i] = row
            return vectors
        return np.stack([first, *rows])

    def encode_stream(
        self,
        inputs: Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        truncate: bool = True,
    ) -> Iterator[Array]:
        """The vectors of `encode` one by one, float32 (C,), for corpora that do not fit in memory.

        Reads ahead some thousand texts, which are tokenised while earlier ones are computed.
        """
        if isinstance(inputs, str):
            raise UserError("encode_stream takes several texts; for one text use encode(text)")
        total = len(inputs) if isinstance(inputs, Sized) else None
        asked = self.ask(
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            truncate=truncate,
        )
        return self._engine.stream(iter(inputs), total, asked)

    def ask(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        truncate: bool = True,
    ) -> EncodeOptions:
        """The options of `encode`, checked, for `encode_windows`."""
        sequences = MAX_SEQUENCES if batch_size is None else between("batch_size", batch_size, 1, 1 << 24)
        dims = self.dimensions if truncate_dim is None else between("truncate_dim", truncate_dim, 1, self.width)
        before = find_prompt(self.prompts, prompt, prompt_name, self.default_prompt_name)
        if self._remind and prompt is None and prompt_name is None:
            self._remind = False
            warnings.warn(reminder(self.model, self.prompts), UserWarning, stacklevel=3)
        return EncodeOptions(
            prompt=before,
            skip=0 if not before or self._include_prompt else self.tokenizer.prompt_length(before),
            limit=self.max_seq_length,
            truncate=truncate,
            sequences=min(sequences, MAX_SEQUENCES),
            dims=dims,
            normalize=normalize_embeddings,
            show_progress_bar=show_progress_bar,
        )

    def encode_windows(
        self, windows: Iterator[Sequence[str]], asked: EncodeOptions, *, first: int = 0
    ) -> Generator[tuple[Array, int], None, None]:
        """`encode_stream` in pieces that the caller chooses (see `Engine.windows`)."""
        return self._engine.windows(windows, asked, first=first)

    def encode_query(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Array:
        """`encode` with the prompt "query", if the model has one and no other is given."""
        if prompt is None and prompt_name is None:
            prompt = first_prompt(self.prompts, "query")
        return self.encode(inputs, prompt_name, prompt, **options)

    def encode_document(
        self, inputs: str | Iterable[str], prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Array:
        """`encode` with the first of the prompts "document", "passage" and "corpus" that the model has, if no other is given."""
        if prompt is None and prompt_name is None:
            prompt = first_prompt(self.prompts, "document", "passage", "corpus")
        return self.encode(inputs, prompt_name, prompt, **options)

    @property
    def _include_prompt(self) -> bool:
        return all(m.include_prompt for m in self.modules if isinstance(m, Pooling))

    def similarity(self, a: Array, b: Array) -> Array:
        """All pairs of rows, float32 (len(a), len(b)), by `similarity_fn_name`; distances are negated, so higher is closer."""
        with self._engine.lock:
            return pairwise.all_pairs(a, b, self.similarity_fn_name, self.opened_device)

    def similarity_pairwise(self, a: Array, b: Array) -> Array:
        """Row by row, float32 (n,): a[i] with b[i]."""
        return pairwise.row_by_row(a, b, self.similarity_fn_name)

    def similarity_matrix(self, sentences: Iterable[str], **encode: Any) -> Array:
        """The similarity of every sentence with every other, float32 (n, n). Keywords go to `encode`."""
        vectors = self.encode([*sentences], **encode)
        return self.similarity(vectors, vectors)

    def info(self) -> dict[str, str | int]:
        """The model card: what was loaded, where it runs and what of it."""
        c = self.checkpoint
        pooling = " + ".join(mode for m in self.modules if isinstance(m, Pooling) for mode in m.modes)
        then = [type(m).__name__ + (f" {m.outputs}" if isinstance(m, Dense) else "") for m in self.modules[1:]]
        why = {self.layers: "the last", 0: "the embeddings"}.get(self.layer, f"blocks 1 to {self.layer} are run")
        if self.layer == default_layer(c) != self.layers:
            why = f"the middle, the default for a {c.config.title} without a sentence-transformers folder"
        return {
            "model": self.model,
            "architecture": c.architecture,
            "layers": self.layers,
            "layer used": f"{self.layer} of {self.layers} ({why})",
            "width": c.config.width,
            "heads": c.config.heads,
            "vocabulary": c.config.vocab,
            "parameters": c.parameters,
            "pooling": " then ".join([pooling, *then]),
            "dimensions": self.dimensions,
            "max_seq_length": self.max_seq_length,
            "prompts": ", ".join(self.prompts) or "none",
            "similarity": self.similarity_fn_name,
            "device": self.device,
            "dtype": self.dtype,
            "matmul": self.matmul,
            "tokens per batch": self.max_tokens,
            "bytes on device": self._program.bytes,
        }
