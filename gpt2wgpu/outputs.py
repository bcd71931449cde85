"""What `encode` returns: a matrix, rows one by one, or the states of each token; as arrays or tensors."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .engine import EncodeOptions, Engine, truncation_message
from .errors import UserError, warn_caller
from .files.windows import take_window
from .graph.memory import check_result_fits
from .graph.tensor import Array
from .inputs import TextInputs
from .tokenizer import Tokenizer
from .vectors.convert import to_container
from .vectors.quantize import RANGED, quantize_embeddings


def text_windows(texts: TextInputs) -> Iterator[list[str]]:
    """The texts in windows, which bound memory. No window is empty."""
    return iter(lambda: take_window(texts.texts), [])


def stream_rows(engine: Engine, tokenizer: Tokenizer, texts: TextInputs, options: EncodeOptions) -> Generator[Array, None, None]:
    """Vectors (dims,) one by one. Texts that were cut are counted in a warning at the end. Raises UserError."""
    if options.precision in RANGED:
        advice = "use encode, or quantize_embeddings with ranges"
        raise UserError(f"{options.precision} takes its ranges from all vectors, a stream knows one at a time: {advice}")

    def rows() -> Generator[Array, None, None]:
        done = cut = 0
        for vectors, too_long in engine.windows(text_windows(texts), tokenizer, options, total=texts.total):
            done, cut = done + len(vectors), cut + too_long
            for row in quantize_embeddings(vectors, options.precision):
                yield row.copy()  # a view would keep its whole window in memory
        warn_of_cut(cut, done, options)

    return rows()


def vector_output(engine: Engine, tokenizer: Tokenizer, texts: TextInputs, options: EncodeOptions) -> Any:
    """The vectors of all texts, (n, dims), or of a single text, (dims,), in the container that the options ask for."""
    matrix = fill_matrix(engine, tokenizer, texts, options)
    found = to_container(quantize_embeddings(matrix, options.precision), options.container)
    return found[0] if texts.single else found


def fill_matrix(engine: Engine, tokenizer: Tokenizer, texts: TextInputs, options: EncodeOptions) -> Array:
    """The vectors of all texts, float32 (n, dims), window by window. Raises UserError where `total` is wrong."""
    total, done, cut = texts.total, 0, 0
    if total is not None:
        check_result_fits(4 * total * options.dims, f"{total:,} vectors", "encode fewer at a time, or use encode_stream")
    known = None if total is None else np.empty((total, options.dims), np.float32)
    pieces = [np.empty((0, options.dims), np.float32)]
    for vectors, too_long in engine.windows(text_windows(texts), tokenizer, options, total=total):
        if known is None:
            pieces.append(vectors)
        else:
            known[done : done + len(vectors)] = vectors[: max(0, len(known) - done)]
        done, cut = done + len(vectors), cut + too_long
    if known is not None and done != len(known):
        raise UserError(f"the inputs gave {done} texts, but their length is {len(known)}: give a list")
    warn_of_cut(cut, done, options)
    return np.concatenate(pieces) if known is None else known


def token_output(engine: Engine, tokenizer: Tokenizer, texts: TextInputs, options: EncodeOptions) -> Any:
    """For each text the states of its tokens, (n, width); or a dict with these, its tokens and its vector (dims,)."""
    held = [*texts.texts]
    again = TextInputs(iter(held), len(held), texts.single)
    ids: list[Array] = []
    states: list[Array] = []
    cut = 0
    for window_ids, window_states, too_long in engine.token_windows(text_windows(again), tokenizer, options, len(held)):
        ids += window_ids
        states += window_states
        cut += too_long
    form = "list" if options.container != "numpy" else "numpy"
    if options.output_value == "token_embeddings":
        warn_of_cut(cut, len(held), options)
        if options.precision != "float32" and states:
            ends = np.cumsum([len(s) for s in states])[:-1]
            states = np.split(quantize_embeddings(np.concatenate(states), options.precision), ends)
        found = to_container(states, form)
        return found[0] if texts.single else found
    if options.precision != "float32":
        raise UserError(f"precision={options.precision!r} needs output_value='sentence_embedding' or 'token_embeddings'")
    again = TextInputs(iter(held), len(held), texts.single)
    vectors = fill_matrix(engine, tokenizer, again, replace(options, normalize=False, show_progress_bar=False))
    records, types = [], tokenizer.has_types()
    for text_ids, text_states, vector in zip(ids, states, vectors, strict=True):
        record = {name: rows[0] for name, rows in pad_tokens([text_ids], 0, types).items()}
        record |= {"token_embeddings": text_states, "sentence_embedding": vector}
        records.append(dict(zip(record, to_container([*record.values()], form), strict=True)))
    return records[0] if texts.single else records


def pad_tokens(ids: Sequence[Array], pad: int, types: bool) -> dict[str, Array]:
    """Tokens of texts under the names that `transformers` uses, int64 (n, longest): padded; the mask is 1 for real tokens."""
    longest = max(map(len, ids), default=0)
    found = {"input_ids": np.full((len(ids), longest), pad, np.int64), "attention_mask": np.zeros((len(ids), longest), np.int64)}
    for i, row in enumerate(ids):
        found["input_ids"][i, : len(row)] = row
        found["attention_mask"][i, : len(row)] = 1
    return {**found, "token_type_ids": np.zeros_like(found["input_ids"])} if types else found


def warn_of_cut(cut: int, of: int, options: EncodeOptions) -> None:
    if cut:
        warn_caller(truncation_message(cut, of, options.limit))
