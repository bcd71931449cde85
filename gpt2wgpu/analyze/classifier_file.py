"""A classifier in a folder: numbers as safetensors, everything else as JSON. Nothing in it is code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, is_text, show
from ..files import open_output
from .classify import CLASSIFIERS, Classifier

TENSORS, FACTS = "classifier.safetensors", "classifier.json"
CLASSIFIER_VERSION = 1
SHAPES = {"logistic": {"weight": 2, "bias": 1}, "centroid": {"centroids": 2}, "knn": {"vectors": 2, "labels": 1}}


def save_classifier(folder: str, made: Classifier, facts: Mapping[str, Any]) -> None:
    """Write both files. facts: how the vectors were made, and scores; JSON. Raises UserError or OSError."""
    from safetensors.numpy import save

    if Path(folder).exists() and not Path(folder).is_dir():
        raise UserError(f"{folder}: is a file, expected a folder for the classifier")
    Path(folder).mkdir(exist_ok=True)
    with open_output(str(Path(folder, TENSORS)), {".safetensors": None}) as (file, _):
        file.write(save({name: np.ascontiguousarray(tensor) for name, tensor in made.tensors.items()}))
    values = {"version": CLASSIFIER_VERSION, "method": made.method, "classes": made.classes, "k": made.k, **facts}
    with open_output(str(Path(folder, FACTS)), {".json": None}) as (file, _):
        file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def load_classifier(folder: str) -> tuple[Classifier, dict[str, Any]]:
    """The classifier and the facts it was saved with. Raises UserError for anything else than what `save_classifier` writes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    place = Path(folder)
    if not (place / FACTS).is_file() or not (place / TENSORS).is_file():
        raise UserError(f"{show(place)}: has no {FACTS} and {TENSORS}: make them with `gpt2wgpu classify train`")
    try:
        facts = json.loads((place / FACTS).read_bytes())
        tensors = load_file(place / TENSORS)
    except (ValueError, RecursionError, SafetensorError) as error:
        raise UserError(f"{show(place)}: cannot be read ({error}): train the classifier again") from None
    if (wrong := describe_damage(facts, tensors)) is not None:
        raise UserError(f"{show(place)}: {wrong}: train the classifier again")
    return Classifier(facts["method"], facts["classes"], tensors, facts["k"]), facts


def describe_damage(facts: Any, tensors: Mapping[str, Any]) -> str | None:
    """What is wrong with a classifier's files; None if nothing is."""
    if not isinstance(facts, dict) or facts.get("version") != CLASSIFIER_VERSION:
        return f"{FACTS} is of another version of gpt2wgpu"
    classes, k = facts.get("classes"), facts.get("k")
    if facts.get("method") not in CLASSIFIERS or not isinstance(k, int) or k < 1:
        return f"{FACTS} has no method and k that are known"
    if not isinstance(classes, list) or len(classes) < 2 or not all(map(is_text, classes)):
        return f"{FACTS} has no list of classes"
    wanted = SHAPES[facts["method"]]
    if {name: t.ndim for name, t in tensors.items()} != wanted:
        return f"{TENSORS} does not have the tensors {', '.join(wanted)}"
    rows = {name: len(t) for name, t in tensors.items()}
    count = len(classes)
    fits = {
        "logistic": rows.get("weight") == rows.get("bias") == (1 if count == 2 else count),
        "centroid": rows.get("centroids") == count,
        "knn": rows.get("vectors") == rows.get("labels") and rows.get("vectors", 0) >= k,
    }
    if not fits[facts["method"]] or not all(np.isfinite(t).all() for t in tensors.values()):
        return f"{TENSORS} does not fit the classes"
    labels = tensors.get("labels")
    if labels is not None and (labels.dtype.kind != "i" or not ((labels >= 0) & (labels < count)).all()):
        return f"{TENSORS} does not fit the classes"
    return None
