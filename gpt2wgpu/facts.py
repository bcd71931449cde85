"""An Encoder's facts and options as attributes, and the methods of SentenceTransformer that read or change them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from .checkpoint import Checkpoint
from .checkpoint.graph import describe_graph
from .checkpoint.modules import Module
from .checkpoint.prompts import find_prompt
from .checkpoint.saving import save_checkpoint
from .compat import check_prompts
from .devices.choose import device_name
from .engine import Engine
from .errors import UserError, between
from .graph.tensor import Array
from .inputs import Inputs, list_texts
from .models import Architecture
from .outputs import pad_tokens
from .tokenizer import Tokenizer
from .vectors.pairwise import all_pairs, check_similarity, row_by_row


class ModelFacts:
    """A model on a device. `Encoder` opens it."""

    model: str  # the name or folder that was asked for
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    engine: Engine
    _layer: int
    _pooling: str | None
    _modules: tuple[Module, ...]
    _layers: tuple[int, ...] = ()  # several side by side; none: `layer`

    # What is compiled into the graph cannot be set later.

    @property
    def layer(self) -> int:
        """The hidden state after this block is pooled."""
        return self._layer

    @property
    def pooling(self) -> str | None:
        """The pooling that was asked for; None: what the folder says."""
        return self._pooling

    @property
    def modules(self) -> tuple[Module, ...]:
        """What follows the transformer, a Pooling first."""
        return self._modules

    @property
    def device(self) -> str:
        """Where it computes: "numpy", or the adapter."""
        return self.engine.place.name

    @property
    def dtype(self) -> str:
        """The dtype of the weights: "float32", "float16" or "int8"."""
        return self.engine.place.dtype

    @property
    def layers(self) -> int:
        """Blocks of the model, whether or not they are run."""
        return self.checkpoint.config.layers

    @property
    def context(self) -> int:
        """Tokens of the longest text that the model can read."""
        return self.checkpoint.config.usable_length

    @property
    def width(self) -> int:
        """Length of a vector before it is cut."""
        return self.engine.width

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return min(self.width, self.truncate_dim or self.width)

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read, special ones included; what is longer is cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self._max_seq_length = between("max_seq_length", tokens, 1, self.context)

    @property
    def truncate_dim(self) -> int | None:
        """How many leading dimensions of a vector are kept; None, or more than there are, keeps all."""
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, dims: int | None) -> None:
        self._truncate_dim = None if dims is None else between("truncate_dim", dims, 1, 1 << 24)

    @property
    def prompts(self) -> dict[str, str]:
        """Texts to prepend, by name. Setting anything else raises UserError."""
        return self._prompts

    @prompts.setter
    def prompts(self, prompts: Mapping[str, str | None]) -> None:
        self._prompts = check_prompts(prompts)

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of calls that name none."""
        return self._default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, name: str | None) -> None:
        find_prompt(self.prompts, None, name, None)  # refuses an unknown one
        self._default_prompt_name = name

    @property
    def similarity_fn_name(self) -> str:
        """ "cosine", "dot", "euclidean" or "manhattan"; may also be set to None, for cosine, or sentence-transformers' enum."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: object) -> None:
        self._similarity_fn_name = check_similarity(name)

    # --- sentence-transformers' names for these

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.dimensions

    def get_sentence_embedding_dimension(self) -> int:
        """Length of a vector; the old name of `get_embedding_dimension`."""
        return self.dimensions

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Inside the block, `truncate_dim` has another value."""
        before = self.truncate_dim
        self.truncate_dim = truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def tokenize(self, texts: Inputs, prompt: str | None = None) -> dict[str, Array]:
        """The tokens of texts, cut at `max_seq_length`: input_ids, attention_mask and, if the architecture has them,
        token_type_ids, int64 (n, longest), padded. Raises UserError as `encode` does."""
        given = list_texts(texts, "tokenize")
        ids, _ = self.tokenizer.encode([prompt + t for t in given] if prompt else given, self.max_seq_length)
        return pad_tokens(ids, self.tokenizer.pad_id(), self.tokenizer.has_types())

    def preprocess(self, inputs: Inputs, prompt: str | None = None) -> dict[str, Array]:
        """The new name of `tokenize`."""
        return self.tokenize(inputs, prompt)

    def similarity(self, a: Any, b: Any) -> Array:
        """All pairs of rows, float32 (len(a), len(b)), by `similarity_fn_name`; distances are negated, so higher is closer.

        a, b: vectors (n, C), or one (C,), as arrays, lists or tensors. Raises UserError for anything else.
        """
        with self.engine.lock:
            self.engine.check_open()
            return all_pairs(a, b, self.similarity_fn_name, self.engine.place.device)

    def similarity_pairwise(self, a: Any, b: Any) -> Array:
        """Row by row, float32 (n,): a[i] with b[i]. One of them may be a single vector; two single vectors give a scalar, ()."""
        return row_by_row(a, b, self.similarity_fn_name)

    def info(self) -> dict[str, str | int]:
        """The model card: what was loaded, where it runs, and which layer and modules."""
        place = self.engine.place
        return {
            "model": self.model,
            **describe_graph(self.checkpoint, self.layer, self.modules),
            "dimensions": self.dimensions,
            "max_seq_length": self.max_seq_length,
            "prompts": ", ".join(self.prompts) or "none",
            "similarity": self.similarity_fn_name,
            "device": place.name,
            "dtype": place.dtype,
            "matmul": place.matmul,
            "tokens per batch": self.engine.max_tokens,
            "bytes on device": 0 if self.engine.closed else self.engine.program.bytes,
        }

    def save_pretrained(
        self,
        path: str | Path,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Sequence[str] | None = None,
        safe_serialization: bool = True,
        *,
        dtype: str | None = None,
    ) -> None:
        """Write a folder that this package and sentence-transformers load, with the prompts, lengths, pooling and similarity
        as they are now. It appears when it is complete.

        dtype: of the transformer's weights in the folder: "float32", "float16", or "int8" for a folder of a quarter to a half
        the size that only this package loads. None: that of the model's files, but float16 if they are int8.
        model_name, create_model_card, train_datasets: accepted without effect; the model's README.md is copied.
        Raises UserError if the folder is not empty, for safe_serialization=False, and if `layer` is not the last one, which
        no folder can express.
        """
        c = self.checkpoint
        if self._layers or self.layer != c.config.layers:
            used = ", ".join(map(str, self._layers or (self.layer,)))
            raise UserError(f"vectors of layer {used} of {c.config.layers} cannot be saved: a folder always means the last layer")
        if not safe_serialization:
            raise UserError("safe_serialization=False asks for a pickle, which could run code: leave it out")
        settings = {
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name,
            "truncate_dim": self.truncate_dim,
        }
        save_checkpoint(c, Path(path), self.modules, self.max_seq_length, settings, dtype)

    def save(self, path: str | Path, *args: Any, **options: Any) -> None:
        """`save_pretrained`."""
        self.save_pretrained(path, *args, **options)

    def to(self, device: object = None) -> Self:
        """Does nothing where the model is on this device, or None. Raises UserError for another: it stays where it was opened."""
        if device is not None and device_name(device) not in (("gpu", "auto") if self.engine.place.device else ("numpy", "auto")):
            raise UserError(f"the model stays on {self.device}, where it was opened: open another Encoder with device={device!r}")
        return self

    def cpu(self) -> Self:
        """`to("cpu")`: does nothing in numpy, else raises UserError."""
        return self.to("cpu")

    def half(self) -> Self:
        """Does nothing in float16. Raises UserError in other dtypes, which are chosen when the model is opened."""
        if self.dtype != "float16":
            raise UserError(f"the model is in {self.dtype}, as it was opened: open another Encoder with dtype='float16'")
        return self

    def eval(self) -> Self:
        """Does nothing: an Encoder has no other mode."""
        return self

    def __len__(self) -> int:
        """How many modules it has: the transformer, the pooling and what follows."""
        return 1 + len(self.modules)

    def __getitem__(self, i: int) -> Architecture | Module:
        """A module's configuration: of the transformer (0), the pooling (1), ..."""
        return (self.checkpoint.config, *self.modules)[i]
