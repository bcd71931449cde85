"""The settings of a training run: everything that its result depends on, except the device."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from ..errors import UserError, between, show
from ..hub import BUILT_IN_NAME, is_name

READ_AGAIN = ("data", "hard_pairs", "validation", "teacher", "teacher_vectors")  # by a resumed run; they must be unchanged
PATHS = (*READ_AGAIN, "model", "tokenizer")
OPTIONS_OF_LOSSES = {"margin": "contrastive", "temperature": "info_nce"}
OPTIONS_OF_LOSSES |= dict.fromkeys(("token_vectors", "hard_pairs"), "distillation")
SIZES = {"layers": 6, "heads": 4, "width": 256, "context": 128, "vocab": 12288}  # defaults of a model from scratch


@dataclass(frozen=True)
class TrainSettings:
    """The options of `gpt2wgpu train`; see `gpt2wgpu train --help`. A value of None is chosen when the run begins.

    Raises UserError if a value is out of range or two options exclude each other.
    """

    data: list[str] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)  # of each file of `data`; all 1 if empty
    hard_pairs: str | None = None
    validation: str | None = None
    model: str | None = None  # from scratch if None
    tokenizer: str | None = None
    layers: int | None = None
    heads: int | None = None
    width: int | None = None
    context: int | None = None
    vocab: int | None = None
    bidirectional: bool = False  # a model from scratch whose tokens see later ones, too
    loss: str | None = None
    margin: float = 0.5
    temperature: float = 0.05
    teacher: str | None = None
    teacher_vectors: list[str] = field(default_factory=list)  # a file for each of `data`, and one for `hard_pairs`
    token_vectors: bool = True
    epochs: int = 3
    batch_tokens: int = 2048
    accumulate: int = 1
    lr: float | None = None
    warmup: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.0
    average: bool = False
    freeze: list[str] = field(default_factory=list)
    seed: int = 0
    max_seq_length: int | None = None
    limit_train: int | None = None
    limit_validation: int | None = None
    save_every: int = 500
    dtype: str = "float32"

    def __post_init__(self) -> None:
        between("epochs", self.epochs, 1, 100_000)
        for name in ("batch_tokens", "accumulate", "save_every"):
            between(name, getattr(self, name), 1, 1 << 30)
        for name in ("warmup", "max_seq_length", "limit_train", "limit_validation"):
            if getattr(self, name) is not None:
                between(name, getattr(self, name), 0 if name == "warmup" else 1, 1 << 40)
        between("seed", self.seed, 0, (1 << 64) - 1)
        ranges = {"margin": (0, 2), "temperature": (0, 100), "weight_decay": (0, 1), "clip": (0, 1e30), "dropout": (0, 1)}
        ranges |= {} if self.lr is None else {"lr": (0, 1e3)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            zero = name in ("weight_decay", "dropout")
            if not (low < value < high or (zero and value == 0) or (name == "margin" and value == high)):
                raise UserError(f"{name} must be a number between {low} and {high:g}, not {value!r}")
        for weight in self.weight:
            if not 0 < weight <= 1000:
                raise UserError(f"weight must be a number above 0, at most 1,000, not {weight!r}")
        if len(self.weight) not in (0, len(self.data)):
            found = f"weight is given {len(self.weight)} times, and data {len(self.data)} times"
            raise UserError(f"{found}: give one --weight for each --data, in the same order")
        if len(self.teacher_vectors) not in (0, len(self.data) + (self.hard_pairs is not None)):
            found = f"teacher_vectors is given {len(self.teacher_vectors)} times, and data {len(self.data)} times"
            found += "" if self.hard_pairs is None else ", with hard_pairs"
            expected = "give one --teacher-vectors for each --data, in the same order, then one for --hard-pairs if there is one"
            raise UserError(f"{found}: {expected}")
        if self.dtype not in ("float32", "float16"):
            raise UserError(f"dtype must be float32 or float16, not {self.dtype!r}")
        if self.model is not None:
            for name in ("tokenizer", *SIZES):
                if getattr(self, name) is not None:
                    raise UserError(f"{name} is for a model from scratch, a given model has its own: leave one of the two out")
            if self.bidirectional:
                raise UserError("bidirectional is for a model from scratch, a given model has its own direction: leave it out")
        if self.tokenizer is not None and self.vocab is not None:
            raise UserError("vocab is the size of a tokenizer to be made, and --tokenizer gives one: leave one of the two out")

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "TrainSettings":
        """Settings from options. Paths become absolute, so that a run can be resumed from any folder."""
        return cls(**{name: absolute_paths(name, value) for name, value in options.items()})

    @classmethod
    def from_json(cls, values: dict[str, Any], run: Path) -> "TrainSettings":
        """The inverse of `as_json`, for a run that may have been moved. Raises UserError."""
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            raise UserError("the run was made by another version of gpt2wgpu: start a new one in another folder")
        for f in fields(cls):
            if not has_type(values[f.name], f.type) or (f.name in ("loss", "lr") and values[f.name] is None):
                raise UserError(
                    f"the setting {f.name} is {show(values[f.name])}, which no run has: start a new one in another folder"
                )
        return cls(**values | {name: map_paths(values[name], partial(resolve_path, run)) for name in PATHS})

    def as_json(self, run: Path) -> dict[str, Any]:
        """Values for JSON. Paths are relative to the folder of the run, so that it can be moved together with its data and does
        not reveal where it was."""
        return asdict(self) | {name: map_paths(getattr(self, name), partial(relative_path, run)) for name in PATHS}

    def chosen(self, **values: Any) -> "TrainSettings":
        """A copy in which these values replace those that are None."""
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value of JSON has the type of a setting."""
    if isinstance(hint, UnionType):
        return any(has_type(value, part) for part in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(has_type(v, get_args(hint)[0]) for v in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def absolute_paths(name: str, value: Any) -> Any:
    """The value of an option, with paths made absolute; names on the hub stay unchanged."""
    if name not in PATHS or value is None or (name in ("model", "teacher") and is_on_the_hub(value)):
        return value
    return map_paths(value, os.path.abspath)


def map_paths(value: Any, change: Callable[[str], str]) -> Any:
    """`change` applied to a path, to each path of a list, or not at all to None."""
    return change(value) if isinstance(value, str) else value and [change(path) for path in value]


def relative_path(run: Path, path: str) -> str:
    """A path relative to the run, "./..." or "../...". A name on the hub, or a path on another drive, stays unchanged."""
    if not Path(path).is_absolute():
        return path
    try:
        relative = Path(os.path.relpath(path, run)).as_posix()
    except ValueError:
        return path
    return relative if relative.startswith("../") else f"./{relative}"


def resolve_path(run: Path, path: str) -> str:
    """The inverse of `relative_path`: an absolute path."""
    return os.path.normpath(run.absolute() / path) if path.startswith(("./", "../")) else path


def is_on_the_hub(model: str) -> bool:
    return model == BUILT_IN_NAME or (is_name(model) and not Path(model).exists())


def check_same(settings: TrainSettings, given: dict[str, Any]) -> None:
    """Raises UserError if an option given to a resumed run differs from the run's own."""
    for name, value in given.items():
        if (there := getattr(settings, name)) != (here := absolute_paths(name, value)):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} is {here!r} here and {there!r} in the run, whose settings cannot change: leave it out")


def frozen_weights(patterns: Sequence[str], names: Iterable[str], block: str) -> set[str]:
    """The names that patterns stand for: "layers:0-3" means blocks, "wte" a weight or a group of weights, * any characters.

    names: of all weights. block: the name of a weight that every block has, with {} for the number of the block
    (Architecture.block). Raises UserError if a pattern fits no weight, or if all weights are frozen.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        if match := re.fullmatch(r"layers:(\d+)(?:-(\d+))?", pattern):
            first, last = int(match[1]), int(match[2] or match[1])
            blocks = ((name, re.match(rf"{re.escape(block.split('{}')[0])}(\d+)\.", name)) for name in names)
            hit = {name for name, block in blocks if block and first <= int(block[1]) <= last}
        else:
            hit = {name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")}
        if not hit:
            raise UserError(f"freeze: no weight is called {pattern!r}; there are {', '.join(names[:20])}, ...; or layers:0-3")
        found |= hit
    if found == set(names):
        raise UserError("freeze: every weight is frozen, so there is nothing to train")
    return found
