"""Models x layers x poolings x post-processing on judged pairs: where in a model is the meaning, and what hides it?

Conventions. Layer 0 is the embedding, layer n the state after block n, `hidden_states[n]` of `transformers`: of a GPT-2 the last
one is after the final norm. Vectors are the pooled states; what a folder has after its pooling is left out, so that all layers
are treated alike. Post-processing is fitted on the texts of another file, never on the pairs. The score is Spearman's
correlation of the cosine with people's judgements.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..encoder import Encoder
from ..errors import UserError
from ..files.pairs import Pairs
from ..files.windows import WINDOW
from ..graph.ops import POOLINGS
from ..graph.tensor import Array
from ..vectors.measures import pearson_correlation
from ..vectors.pairwise import row_by_row
from ..vectors.postprocess import count_directions, fit_steps, parse_steps
from .scores import LAYER_NUMBERS, check_targets, distinct_sentences, mean_ranks, parse_layers
from .static_vectors import token_means, word_means

WITHOUT_FIRST = "mean_without_first"  # raw GPT-2's first token is a giant, whatever it is (Sun et al. 2024)
STUDY_POOLINGS = ("mean", WITHOUT_FIRST, "weighted_mean", "last", "cls", "max")
TREATMENTS = ("raw", "centre", "standardise", "whiten", "remove_top", "ranks")
LARGEST_WHITENED = 256  # K of "whiten" without one: half the width, at most this (Su et al. 2021 take 256 of 768)
TOKEN_TABLE = "tokens"  # the pooling of a token table alone
WORD_VECTORS = "words"  # of vectors in a file


@dataclass(frozen=True)
class StudyRow:
    """One measurement. layer: None for a baseline. treatment: "raw", "ranks", or steps as they were fitted, such as "whiten:128".
    asked: the treatment as it was asked for, "whiten"."""

    model: str
    layer: int | None
    pooling: str
    asked: str
    treatment: str
    dimensions: int
    spearman: float


@dataclass(frozen=True)
class Study:
    """data, fit: the files; pairs, texts: how many. models: facts of each model by name, its layers among them. notes: on
    baselines, and of too few texts."""

    data: str
    fit: str
    pairs: int
    texts: int
    models: dict[str, dict[str, Any]]
    rows: tuple[StudyRow, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def best(self, **same: object) -> StudyRow | None:
        """The row of the highest score among those with these values; None if there is none."""
        found = [row for row in self.rows if all(getattr(row, name) == value for name, value in same.items())]
        return max(found, key=lambda row: row.spearman, default=None)

    def curve(self, model: str, pooling: str, asked: str) -> list[tuple[int, float]]:
        """(layer, score) of one model, pooling and treatment, by layer."""
        rows = (r for r in self.rows if (r.model, r.pooling, r.asked) == (model, pooling, asked) and r.layer is not None)
        return sorted((r.layer or 0, r.spearman) for r in rows)

    def values(self, name: str, model: str | None = None) -> list[Any]:
        """The different values of a field, in order of appearance; of one model's rows, or of all."""
        return [*dict.fromkeys(getattr(row, name) for row in self.rows if model in (None, row.model))]


def run_study(
    models: Sequence[Encoder],
    pairs: Pairs,
    texts: Sequence[str],
    *,
    layers: str = "all",
    poolings: Sequence[str] = STUDY_POOLINGS,
    treatments: Sequence[str] = TREATMENTS,
    vectors: Sequence[str] = (),
    data: str = "",
    fit: str = "",
) -> Study:
    """Measure every combination. Raises UserError for what cannot be measured.

    texts: to fit on; sentences of the pairs among them are left out. layers: as for `parse_layers`. treatments: "raw",
    "ranks", or steps of vectors/postprocess.py; "whiten" and "remove_top" without K choose it by the width. vectors: files of
    word vectors. data, fit: names for the report.
    """
    check_targets(pairs)
    check_names(poolings, treatments)
    sentences = distinct_sentences(pairs)
    tested = set(sentences)
    fitting = [text for text in dict.fromkeys(texts) if text not in tested]
    if len(fitting) < 2 and set(treatments) - {"raw", "ranks"}:
        raise UserError(
            f"{fit or 'the texts to fit on'}: {len(fitting)} texts are left without those of the pairs, expected many"
        )
    together = [*sentences, *fitting]
    rows: list[StudyRow] = []
    notes: list[str] = []
    facts: dict[str, dict[str, Any]] = {}

    def measure(found: Array, model: str, layer: int | None, pooling: str) -> None:
        few = few_texts(len(fitting), found.shape[1], treatments)
        if few and few not in notes:
            notes.append(few)
        for asked in treatments:
            treatment, treated = treat_vectors(found, len(sentences), asked)
            score = spearman_cosine(treated, sentences, pairs)
            rows.append(StudyRow(model, layer, pooling, asked, treatment, treated.shape[1], score))

    for encoder in models:
        name = Path(encoder.model).name if Path(encoder.model).is_dir() else encoder.model
        if name in facts:
            raise UserError(f"two models are called {name}: rename a folder")
        facts[name] = {
            key: value for key, value in encoder.info().items() if key in ("architecture", "layers", "width", "device")
        }
        numbers = parse_layers(layers, encoder.layers)
        for layer, pooling, found in layer_vectors(encoder, numbers, poolings, together):
            measure(found, name, layer, pooling)
        measure(token_means(encoder, together), name, None, TOKEN_TABLE)
    for path in vectors:
        found, known = word_means(path, together)
        name = Path(path).name
        notes.append(f"{name} has a vector for {known:.1%} of the words")
        measure(found, name, None, WORD_VECTORS)
    return Study(data, fit, len(pairs), len(fitting), facts, tuple(rows), tuple(notes))


def check_names(poolings: Sequence[str], treatments: Sequence[str]) -> None:
    """Raise UserError for an unknown pooling or treatment."""
    for pooling in poolings:
        if pooling not in (*POOLINGS, WITHOUT_FIRST):
            raise UserError(f"pooling must be one of {', '.join((*POOLINGS, WITHOUT_FIRST))}, not {pooling!r}")
    for asked in treatments:
        if asked not in TREATMENTS:
            try:
                parse_steps(asked.replace("+", ","))
            except UserError as error:
                raise UserError(f"treatments are {', '.join(TREATMENTS)}, or steps such as whiten:128; {error}") from None


def few_texts(texts: int, width: int, treatments: Sequence[str]) -> str:
    """A warning, or "": the spread of `width` dimensions cannot be known from fewer texts."""
    scaled = [asked for asked in treatments if "whiten" in asked or "standardise" in asked]
    if not scaled or texts >= width:
        return ""
    return f"too few texts: {', '.join(scaled)} fitted on {texts:,}, expected many more than the vectors' {width:,} dimensions"


def layer_vectors(
    encoder: Encoder, layers: Sequence[int], poolings: Sequence[str], texts: Sequence[str]
) -> Iterator[tuple[int, str, Array]]:
    """The pooled states (n, C) after each layer, from one pass, or from several if those of all layers are too large together."""
    modes, counts = [p for p in poolings if p != WITHOUT_FIRST], np.zeros(0)
    if WITHOUT_FIRST in poolings:
        modes = [*dict.fromkeys([*modes, "mean", "cls"])]
        counts = np.array([len(ids) for ids in encoder.tokenizer.encode(texts, encoder.max_seq_length)[0]])
    at_once = max(1, LAYER_NUMBERS // (len(texts) * encoder.checkpoint.config.width * len(modes)))
    for first in range(0, len(layers), at_once):
        some = layers[first : first + at_once]
        pooled = encoder.with_layers(some, modes)
        options = pooled.options(prompt="")
        windows = (texts[i : i + WINDOW] for i in range(0, len(texts), WINDOW))
        parts, cut = zip(*pooled.encode_windows(windows, options), strict=True)
        if sum(cut) and not first:
            warnings.warn(f"{sum(cut)} texts were cut at {options.limit} tokens", UserWarning, stacklevel=2)
        found = np.concatenate(parts).reshape(len(texts), len(some), len(modes), -1)
        for i, layer in enumerate(some):
            vectors = dict(zip(modes, np.moveaxis(found[:, i], 1, 0), strict=True))
            for name in poolings:
                yield layer, name, leave_out_first(vectors, counts) if name == WITHOUT_FIRST else vectors[name]


def leave_out_first(vectors: Mapping[str, Array], counts: Array) -> Array:
    """The means without the first tokens (n, C), from "mean" and "cls", the first tokens; counts (n,): of all tokens.

    A lone token is its own mean. float32 means hold a sum to about 1e-7 of it, so beside a first token of 3,000, as in GPT-2,
    the others are right to about 1e-3.
    """
    n = counts[:, None].astype(np.float64)
    others = (n * vectors["mean"] - vectors["cls"]) / np.maximum(n - 1, 1)
    return np.where(n > 1, others, vectors["cls"]).astype(np.float32)


def treat_vectors(vectors: Array, tested: int, asked: str) -> tuple[str, Array]:
    """The first `tested` of the vectors after a treatment, which is fitted on the others; and its name."""
    test, fit = vectors[:tested], vectors[tested:]
    if asked == "raw":
        return asked, test
    if asked == "ranks":
        return asked, np.stack([mean_ranks(row.astype(np.float64)) for row in test]).astype(np.float32) - (test.shape[1] + 1) / 2
    name = asked.replace("+", ",")
    if asked in ("whiten", "remove_top"):
        width = vectors.shape[1]
        wanted = max(1, min(LARGEST_WHITENED, width // 2) if asked == "whiten" else width // 100)  # Mu & Viswanath 2018
        k = min(wanted, count_directions(fit))
        name = f"{asked}:{k}" if k else "centre"  # the first tokens of all texts may be one and the same
    return name, fit_steps(fit, parse_steps(name)).apply(test)


def spearman_cosine(vectors: Array, sentences: Sequence[str], pairs: Pairs) -> float:
    """Spearman's correlation of the cosines of the pairs' vectors with the targets. Vectors are those of the sentences."""
    assert pairs.targets is not None
    row = {text: i for i, text in enumerate(sentences)}
    a, b = (vectors[[row[text] for text in texts]] for texts in (pairs.sentences1, pairs.sentences2))
    return pearson_correlation(mean_ranks(row_by_row(a, b, "cosine").astype(np.float64)), mean_ranks(pairs.targets))
