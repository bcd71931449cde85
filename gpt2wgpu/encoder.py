"""Text in, vectors out: `Encoder(model).encode(texts)`."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from . import checkpoint, hub
from .checkpoint import Pooling
from .checkpoint.fitted import add_affine
from .checkpoint.graph import build_graph, choose_modules, concat_layers, default_layer
from .checkpoint.modules import Module
from .checkpoint.prompts import family_prompts, find_prompt, first_prompt, model_names, prompt_reminder
from .compat import (
    ModelKeywords,
    OutputOptions,
    VectorOptions,
    check_model_keywords,
    check_model_name,
    check_prompts,
    read_options,
)
from .devices.choose import find_device, find_dtype, find_matmul
from .engine import LONG_TEXT_TOKENS, MAX_SEQUENCES, EncodeOptions, Engine, Placement
from .errors import between, warn_caller
from .facts import ModelFacts
from .graph.tensor import Array, Tensor
from .inputs import Inputs, list_texts, read_inputs, read_several
from .outputs import stream_rows, token_output, vector_output
from .tokenizer import Tokenizer
from .vectors.postprocess import fit_steps, parse_steps

if TYPE_CHECKING:
    from .explain.result import Explanation

Text = str | None  # a prompt, or the name of one


class Encoder(ModelFacts):
    """A model on a device, ready to turn texts into vectors.

    model: a folder in Hugging Face or sentence-transformers layout, or the name of a model on the hub ("org/name"; a bare
        name means sentence-transformers/name, except for some such as "gpt2"); None for the built-in model.
    device: "auto" (a GPU if there is one, else numpy; the environment variable GPT2WGPU_DEVICE changes that), "numpy" or
        "cpu", "gpu" (a software adapter if there is no GPU), or an adapter's number or part of its name.
    dtype: of weights and matmul operands; everything else is float32. "float32"; "float16"; "auto": float16 on a GPU that
        supports it, else float32 (software adapters are slower with float16); "int8", on any device: linear layers and the
        token table in a quarter of float32's memory, the rest as with "auto".
    layer: take the hidden state after this block (0: the embeddings), as `hidden_states[layer]` of `transformers`; only
        these blocks are loaded and run. Default: the last one; for a GPT-2 folder without modules.json, the block at 7/12 of
        the depth, because its middle layers represent meaning best.
    pooling: one of "mean", "cls", "max", "last", "weighted_mean", "sqrt_len_mean". Default: the folder's
        own; without one, "last" for a decoder (its config.json names a class ending in ForCausalLM), else "mean".
    max_tokens: most tokens in a batch. It bounds memory; on a GPU it never changes a vector. Default: 16,384 on a discrete
        GPU, 2,048 elsewhere (numpy: 1,024 a core, at least 2,048), and fewer on a GPU that turns out to be slow.
    max_seq_length: tokens of a text that are read, special ones included. Default: what the folder says.
    prompts, default_prompt_name, truncate_dim, similarity_fn_name: as in sentence-transformers. Default: what the folder says;
        if it has no prompts, those that the model's family is known to expect (`checkpoint/prompts.py`).
    revision, token, cache_folder, local_files_only: for a model on the hub, as in sentence-transformers. A model in the cache
        is used unchanged, without the network.
    Other keywords of SentenceTransformer are accepted if they change nothing, such as backend="torch" (`compat.py`).

    Threads may share an Encoder. While it encodes several texts in numpy, the BLAS of the whole process has one thread,
    because each core computes its own texts. A forked child may use an Encoder that it inherits in numpy; on a device
    it has to open its own.
    Pickles and copies hold the arguments and options, not the weights: unpickling or copying opens the model again.
    `close()`, the end of a `with` block and dropping the last reference free the memory.

    Raises UserError if the model or the device cannot be used.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: object = "auto",
        dtype: str = "auto",
        layer: int | None = None,
        pooling: str | None = None,
        max_tokens: int | None = None,
        max_seq_length: int | None = None,
        prompts: dict[str, str] | dict[str, str | None] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        similarity_fn_name: object = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | Path | None = None,
        local_files_only: bool = False,
        **others: Unpack[ModelKeywords],
    ) -> None:
        check_model_keywords(others)
        model = others.get("model_name_or_path") if model is None else model
        check_model_name(model)
        token = others.get("use_auth_token") if token is None else token
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "others", "token")}
        self.model = "built-in" if model is None else str(model)
        folder = hub.find_model(
            model, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        if model is not None and folder == Path(model):
            self._arguments["model"] = folder.absolute()  # a copy may be opened in another working directory
        self.checkpoint = c = checkpoint.load_checkpoint(folder)
        self._layer = default_layer(c) if layer is None else between("layer", layer, 0, c.config.layers)
        self._pooling = pooling
        self._modules = choose_modules(c, pooling)
        own = any(c.prompts.values())  # sentence-transformers writes empty prompts if a model has none
        expected = {} if own else family_prompts(model_names(self.model, c))
        self.prompts = {**(expected or c.prompts), **check_prompts(prompts or {})}
        self.default_prompt_name = default_prompt_name or c.default_prompt_name
        self._remind = bool(expected) and prompts is None and self.default_prompt_name is None
        self.similarity_fn_name = similarity_fn_name or c.similarity_fn_name
        self.tokenizer = Tokenizer.of_checkpoint(c)
        self.max_seq_length = c.max_seq_length if max_seq_length is None else max_seq_length
        self.truncate_dim = c.truncate_dim if truncate_dim is None else truncate_dim
        if max_tokens is not None:
            between("max_tokens", max_tokens, 1, 1 << 24)
        self._layers: tuple[int, ...] = ()  # several layers side by side; empty: only `layer`
        self.engine = self._open()

    def _open(self) -> Engine:
        """Choose the device and compile the model for it."""
        given = self._arguments
        device, reason = find_device(given["device"])
        dtype = find_dtype(given["dtype"], device)
        device, matmul = find_matmul(device, dtype)
        place = Placement(device, reason, dtype, matmul)
        longest = given["max_seq_length"] or min(self.max_seq_length, LONG_TEXT_TOKENS)
        return Engine(
            self.checkpoint, self._graph(place), place, name=self.model, max_tokens=given["max_tokens"], longest=longest
        )

    def _graph(self, place: Placement) -> Tensor:
        """The graph from a batch's tokens to its vectors (B, C)."""
        layers = self._layers or (self.layer,)
        int8 = place.dtype == "int8"
        graphs = [build_graph(self.checkpoint, n, place.operand_dtype, self.modules, int8=int8) for n in layers]
        return concat_layers(graphs) if self._layers else graphs[0]

    def with_layers(self, layers: Sequence[int], poolings: Sequence[str] = ()) -> "Encoder":
        """An Encoder like this one whose vectors are those of several layers side by side, untruncated, (n, layers x C).

        poolings: all that follows the transformer then, side by side for each layer. One pass computes everything. The two
        Encoders share the device, take turns on it, and are closed separately.
        """
        modes = (mode for name in poolings for mode in choose_modules(self.checkpoint, name)[0].modes)  # type: ignore[union-attr]
        modules = (Pooling(tuple(modes)),) if poolings else self.modules
        return self._variant(_layers=tuple(layers), _modules=modules, _truncate_dim=None)

    def with_postprocessing(self, steps: str | Sequence[str], texts: Inputs, **options: Unpack[VectorOptions]) -> "Encoder":
        """An Encoder like this one whose vectors are post-processed by steps that are fitted on unlabelled texts.

        steps: of "centre", "standardise", "whiten:K" and "remove_top:K" (`vectors/postprocess.py`), applied in order. texts: as
        many as can be had, of the kind that will be encoded, but none that are used to test. options: as for `encode`. The
        steps become one Dense module after the others, which `save_pretrained` saves. Raises UserError.
        """
        asked, given = parse_steps(steps), list_texts(texts, "with_postprocessing")
        options["truncate_dim"] = self.width
        fitted = fit_steps(self.encode(given, **options), asked)
        c, modules = add_affine(self.checkpoint, self.modules, fitted.matrix, fitted.bias)
        return self._variant(checkpoint=c, _modules=modules)

    def _variant(self, **changes: Any) -> "Encoder":
        """An Encoder with some attributes changed, on the same device."""
        self.engine.check_open()
        other = object.__new__(type(self))
        other.__dict__ |= {**self.__dict__, **changes}
        at = self.engine
        graph, longest = other._graph(at.place), at.longest_text
        other.engine = Engine(
            other.checkpoint, graph, at.place, name=self.model, max_tokens=at.asked_tokens, longest=longest, lock=at.lock
        )
        return other

    def close(self) -> None:
        """Free the memory, on the host and on the device. A closed Encoder refuses to encode until `reopen`."""
        self.engine.close()

    def reopen(self) -> None:
        """Choose the device and load the model again, keeping the current options: after `close`, after the device was lost,
        or after the model's files changed."""
        self.close()
        self.__dict__ |= open_copy(*self.__reduce__()[1]).__dict__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        names = "model", "prompts", "default_prompt_name", "similarity_fn_name", "max_seq_length", "truncate_dim"
        options = {name: getattr(self, name) for name in names}
        return open_copy, (self._arguments, self._layers, options, self.checkpoint.fitted, self.checkpoint.modules)

    def __repr__(self) -> str:
        return f"Encoder({self.model!r}, device={self.device!r}, dtype={self.dtype!r}, dimensions={self.dimensions})"

    @overload
    def encode(self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **more: Unpack[VectorOptions]) -> Array: ...

    @overload
    def encode(self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **more: Unpack[OutputOptions]) -> Any: ...

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        truncate: bool = True,
        **others: Any,
    ) -> Any:
        """Vectors of texts, float32 (n, C) in the order given; a lone text gives (C,), no texts give (0, C).

        inputs: a text, or several in anything ordered: a list, an array, a column of a table, a generator. A text is a
        string, or {"text": string}.
        prompt: put before each text; without it, the prompt called prompt_name, else the default one.
        batch_size: most texts in a batch; by default only the token budget limits it.
        show_progress_bar: on stderr; None: if logging is set to INFO or DEBUG.
        truncate: texts over `max_seq_length` tokens are cut, and a UserWarning counts them; False refuses them.
        truncate_dim: keep only the first dimensions. normalize_embeddings: scale to length 1, after truncation.
        precision: as for `quantize_embeddings`; "int8" and "uint8" take their ranges from these vectors.
        convert_to_tensor: one tensor of torch; convert_to_numpy=False: a list of tensors.
        output_value: "token_embeddings" gives for each text the hidden states before pooling, float32 (n, width), special
        tokens and prompt included; None gives a dict with these, the tokens and the vector. Nothing is padded or normalised.
        device, pool, chunk_size, task, processing_kwargs: accepted if they change nothing. sentences: the old name of inputs.

        On a device a text's vector has the same bits in any batch; in numpy its last bits depend on what is encoded with it.
        An empty text is encoded as its special tokens or, in a model without them (GPT-2), as <|endoftext|>.
        Raises UserError naming the text that cannot be encoded or whose vector is not finite.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "inputs", "others")}
        texts = read_inputs(others.pop("sentences", None) if inputs is None else inputs, "encode")
        options = self.options(**given, **others)
        output = vector_output if options.output_value == "sentence_embedding" else token_output
        return output(self.engine, self.tokenizer, texts, options)

    @overload
    def encode_query(self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **o: Unpack[VectorOptions]) -> Array: ...

    @overload
    def encode_query(self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **o: Unpack[OutputOptions]) -> Any: ...

    def encode_query(self, inputs: Any = None, prompt_name: Text = None, prompt: Text = None, *more: Any, **options: Any) -> Any:
        """`encode` with the prompt "query", if the model has it, unless one is given."""
        if prompt is None and prompt_name is None:
            prompt = first_prompt(self.prompts, "query")
        return self.encode(inputs, prompt_name, prompt, *more, **options)

    @overload
    def encode_document(
        self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **o: Unpack[VectorOptions]
    ) -> Array: ...

    @overload
    def encode_document(self, inputs: Inputs, prompt_name: Text = ..., prompt: Text = ..., **o: Unpack[OutputOptions]) -> Any: ...

    def encode_document(
        self, inputs: Any = None, prompt_name: Text = None, prompt: Text = None, *more: Any, **options: Any
    ) -> Any:
        """`encode` with the first of the prompts "document", "passage" and "corpus" that the model has, unless one is given."""
        if prompt is None and prompt_name is None:
            prompt = first_prompt(self.prompts, "document", "passage", "corpus")
        return self.encode(inputs, prompt_name, prompt, *more, **options)

    def encode_stream(
        self, inputs: Inputs, prompt_name: str | None = None, prompt: str | None = None, **options: Unpack[VectorOptions]
    ) -> Generator[Array, None, None]:
        """The vectors of `encode` one by one, (C,), for corpora that do not fit in memory. No vector shares memory with others.

        It reads a few thousand texts ahead, which are tokenised while earlier ones are computed.
        """
        texts = read_several(inputs, "encode_stream")
        return stream_rows(self.engine, self.tokenizer, texts, self.options(prompt_name, prompt, **options))

    def encode_windows(
        self, windows: Iterator[Sequence[str]], options: EncodeOptions, *, first: int = 0, total: int | None = None
    ) -> Generator[tuple[Array, int], None, None]:
        """The vectors of each window of texts, float32 (n, dims), and how many texts were cut (see `Engine.windows`)."""
        return self.engine.windows(windows, self.tokenizer, options, first=first, total=total)

    def options(self, prompt_name: Text = None, prompt: Text = None, **given: Unpack[OutputOptions]) -> EncodeOptions:
        """The options of `encode`, checked, for `encode_windows`. Raises UserError."""
        asked = read_options(given, on_device=self.engine.place.device is not None)
        before = find_prompt(self.prompts, prompt, prompt_name, self.default_prompt_name)
        if self._remind and prompt is None and prompt_name is None:
            self._remind = False
            warn_caller(prompt_reminder(self.model, self.prompts))
        included = all(m.include_prompt for m in self.modules if isinstance(m, Pooling))
        return EncodeOptions(
            prompt=before,
            skip=0 if not before or included else self.tokenizer.prompt_length(before),
            limit=self.max_seq_length,
            truncate=given.get("truncate", True),
            sequences=min(given.get("batch_size") or MAX_SEQUENCES, MAX_SEQUENCES),
            dims=min(given.get("truncate_dim") or self.dimensions, self.width),
            normalize=given.get("normalize_embeddings", False),
            **asked,
        )

    def similarity_matrix(self, sentences: Inputs, **options: Unpack[VectorOptions]) -> Array:
        """The similarity of every sentence with every other, float32 (n, n). Keywords go to `encode`."""
        vectors = self.encode(list_texts(sentences, "similarity_matrix"), **options)
        return self.similarity(vectors, vectors)

    def explain(
        self, text: str, other: str | None = None, *, prompt_name: str | None = None, prompt: str | None = None
    ) -> "Explanation":
        """How a text becomes its vector, step by step; with another text, why the two are alike, as exact sums.

        The result is documented in `explain/result.py`; it writes itself as a page, as JSON and as text. All values are
        computed in float64 in numpy; `encoded` holds the vectors of the model's device. Raises UserError as `encode` does, and
        for a text of more than 256 tokens.
        """
        from .explain.explain_texts import explain_texts

        texts = [text] if other is None else [text, other]
        return explain_texts(self, texts, self.options(prompt_name, prompt), self.info())


def open_copy(
    arguments: dict[str, Any],
    layers: tuple[int, ...],
    options: dict[str, Any],
    fitted: Mapping[str, Array],
    modules: tuple[Module, ...],
) -> Encoder:
    """Unpickle or copy an Encoder: open the model again and set the original's options. fitted, modules: its checkpoint's."""
    encoder = Encoder(**arguments)
    if fitted:
        c = replace(encoder.checkpoint, fitted=fitted, modules=modules)
        encoder = encoder._variant(checkpoint=c, _modules=choose_modules(c, encoder.pooling))
    encoder = encoder.with_layers(layers) if layers else encoder
    for name, value in options.items():
        setattr(encoder, name, value)
    return encoder
