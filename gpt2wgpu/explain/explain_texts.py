"""One text or two -> an Explanation."""

from collections.abc import Callable, Sequence

import numpy as np

from ..engine import EncodeOptions
from ..errors import UserError, show
from ..facts import ModelFacts
from ..graph import ops
from ..graph.int8 import quantize_weights
from ..graph.packing import pack_batch, position_ids
from ..graph.tensor import Array, Tensor, schedule
from ..inputs import TextInputs
from ..outputs import fill_matrix
from ..tokenizer.words import TokenFacts, describe_words
from ..vectors.measures import cosine_similarity
from .dispatches import list_dispatches
from .held import pooling_weights
from .result import CosineShares, Explanation, TextTrace
from .shares import TextParts, check_sum
from .trace import Anatomy, Trace, attention_maps, find_anatomy

MOST_TOKENS = 256  # the pictures of attention have tokens x tokens cells


def explain_texts(facts: ModelFacts, texts: Sequence[str], options: EncodeOptions, card: dict[str, str | int]) -> Explanation:
    """Explain one text or two.

    options: of `encode`; card: `Encoder.info()`. Raises UserError for a text that is too long for the model or for a page, and
    for an Encoder of several layers.
    """
    engine = facts.engine
    engine.check_open()
    if facts._layers:
        raise UserError("explain follows one layer, this Encoder has several: open one without with_layers")
    if any(not isinstance(text, str) for text in texts):
        raise UserError(f"explain takes one or two strings, not {show(texts)}")
    limit = min(options.limit, MOST_TOKENS)
    ids, counts = facts.tokenizer.encode([options.prompt + text for text in texts], limit)
    for text, count in zip(texts, counts, strict=True):
        if count > limit:
            why = "the model reads" if limit == options.limit else "a page shows"
            raise UserError(f"{show(text, 40)} has at least {count} tokens, {why} {limit}: shorten it")
    with engine.lock:
        program = engine.program
        weights = weight_reader(facts)
        anatomy = find_anatomy(program.output)
        skips = [min(options.skip, len(row) - 1) for row in ids]
        pad = facts.checkpoint.config.pad
        traces, parts = [], []
        for row, skip in zip(ids, skips, strict=True):
            traces.append(Trace(program.output, weights, pack_batch([row], [position_ids(row, pad)], [skip])))
            check_finite(traces[-1][program.output])
            parts.append(TextParts(traces[-1], anatomy, skip, options.dims))
        shares = split_cosine(parts[0], parts[-1])
        cosine = cosine_similarity(parts[0].vector, parts[-1].vector)
        check_shares(shares, cosine)
        place = engine.place.device
        batch = pack_batch(ids, [position_ids(row, pad) for row in ids], skips)
        found, shaders, used = list_dispatches(program, batch, anatomy, clocked=place is not None and place.clock)
    encoded = fill_matrix(engine, facts.tokenizer, TextInputs(iter(texts), len(texts), False), options)
    kept = [
        keep_text(facts, text, options, row, trace, part, anatomy, vector)
        for text, row, trace, part, vector in zip(texts, ids, traces, parts, encoded, strict=True)
    ]
    pair = len(texts) == 2
    return Explanation(
        model=card | {"architecture": facts.checkpoint.config.title},
        positions=position_kind(program.output),
        texts=tuple(kept),
        cosine=cosine,
        encoded_cosine=cosine_similarity(encoded[0], encoded[-1]),
        shares=shares,
        layer_cosines=layer_cosines(kept, skips, anatomy) if pair else None,
        dispatches=tuple(found),
        shaders=tuple(shaders),
        ops=tuple(used),
        timed=bool(found) and found[0].seconds is not None,
    )


def weight_reader(facts: ModelFacts) -> Callable[[Tensor], Array]:
    """The values of the graph's weights in main memory, as they are on the device."""
    engine = facts.engine
    if engine.place.device is None:
        return engine.program.weights.__getitem__
    c = facts.checkpoint
    return quantize_weights(c.weights, c.stored_int8) if engine.place.dtype == "int8" else c.weights


def check_finite(vector: Array) -> None:
    if not np.isfinite(vector).all():
        raise UserError("the vector holds NaN or Inf, which cannot be explained: the model's weights overflow")


def split_cosine(a: TextParts, b: TextParts) -> CosineShares:
    """The cosine of the vectors of a and b as sums."""
    lengths = float(np.linalg.norm(a.vector) * np.linalg.norm(b.vector))
    scale = 1 / lengths if lengths else 0.0
    parts_a = a.part_shares(b.vector * scale)
    parts_b = parts_a if a is b else b.part_shares(a.vector * scale)
    both = [*dict.fromkeys([*a.held_on_stream, *a.held_after])]
    return CosineShares(
        tokens_a=a.rows @ b.vector * scale,
        tokens_b=b.rows @ a.vector * scale,
        pairs=a.rows @ b.rows.T * scale,
        constant_a=float(a.constant @ b.vector * scale),
        constant_b=float(b.constant @ a.vector * scale),
        constant_both=float(a.constant @ b.constant * scale),
        dimensions=a.vector * b.vector * scale,
        parts_a=parts_a,
        parts_b=parts_b,
        parts=parts_a.mean_with(parts_b),
        held_tokens=a.held_after,
        held_parts=tuple(both),
    )


def check_shares(s: CosineShares, cosine: float) -> None:
    """Raise UserError unless every sum is the cosine."""
    sums = {
        "the tokens of the first text": s.tokens_a.sum() + s.constant_a,
        "the tokens of the second text": s.tokens_b.sum() + s.constant_b,
        "the pairs of tokens": s.pairs_total,
        "the dimensions": s.dimensions.sum(),
        "the parts of the model": s.parts.total,
        "the parts of the model in the first text": s.parts_a.total,
        "the parts of the model in the second text": s.parts_b.total,
    }
    for name, total in sums.items():
        check_sum(f"{name}: their shares of the cosine", total, cosine)


def keep_text(
    facts: ModelFacts,
    text: str,
    options: EncodeOptions,
    ids: Array,
    trace: Trace,
    parts: TextParts,
    anatomy: Anatomy,
    encoded: Array,
) -> TextTrace:
    """What an Explanation keeps of one text."""
    tokens, words = describe_words(facts.tokenizer, options.prompt + text)
    if [t.id for t in tokens] != ids.tolist():  # a text without tokens, which is read as one special token
        names = {i: token for token, i in facts.tokenizer.vocabulary().items()}
        tokens, words = [TokenFacts(i, names.get(i, str(i)), None, None, True) for i in ids.tolist()], []
    maps = [attention_maps(trace, w.attention) for w in anatomy.writes if w.attention is not None]
    n = len(ids)
    vector = parts.vector
    if options.normalize:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return TextTrace(
        text=text,
        read=options.prompt + text,
        tokens=tuple(tokens),
        words=tuple(words),
        token_vectors=trace.token_vectors,
        position_vectors=trace.position_vectors,
        states=np.stack([trace[t] for t in anatomy.states]),
        attention=np.stack(maps) if maps else np.zeros((0, facts.checkpoint.config.heads, n, n)),
        pooling=tuple((p.attrs["mode"], weights) for p, weights in zip(anatomy.pools, parts.pooling, strict=True)),
        pooled=np.concatenate([trace[p][0] for p in anatomy.pools]),
        vector=vector,
        encoded=encoded,
    )


def layer_cosines(texts: Sequence[TextTrace], skips: Sequence[int], anatomy: Anatomy) -> Array:
    """The cosine of two texts after each block, pooled as the model pools, (L + 1,)."""
    modes = [p.attrs["mode"] for p in anatomy.pools]

    def pool(state: Array, skip: int) -> Array:
        return np.concatenate([(pooling_weights(mode, state, skip) * state).sum(0) for mode in modes])

    a, b = ([pool(state, skip) for state in t.states] for t, skip in zip(texts, skips, strict=True))
    return np.array([cosine_similarity(x, y) for x, y in zip(a, b, strict=True)])


def position_kind(output: Tensor) -> str:
    """How a model knows the order of tokens: a row for each position is "learned" and added to the token's, "rotary" turns
    queries and keys, "distance" adds a number to each score; the last has learned rows too."""
    names = {t.op for t in schedule(output)}
    if ops.rotary in names or ops.norm_rotary in names:
        return "rotary"
    return "distance" if ops.attention_bias in names else "learned"
