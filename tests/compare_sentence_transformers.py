"""The same calls on an Encoder and on a SentenceTransformer: python tests/compare_sentence_transformers.py MODEL_FOLDER

Prints every call that does not give the same, and how many do. "refused": ours raises an error that says what to use instead.
"more": only theirs raises. "neither": both raise. An array of numpy in place of a tensor is the same where no tensor is asked
for.
Run by hand, and by tests/adapters/test_sentence_transformers.py, where sentence-transformers is installed.
"""

import copy
import pickle
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpt2wgpu import Encoder

TEXTS = ["The cat is sleeping on the mat.", "A feline is resting", "Stock markets fell", "Über 東京 🙂"]
LONG = "a river of words " * 200
METHODS = ("encode", "encode_query", "encode_document")
Call = Callable[[Any], Any]


def input_calls() -> Iterator[tuple[str, Call]]:
    """Every form of texts, to every method that encodes."""
    forms: dict[str, Callable[[], Any]] = {
        "a string": lambda: TEXTS[0],
        "numpy's string": lambda: np.str_(TEXTS[0]),
        "an empty string": lambda: "",
        "spaces and newlines": lambda: [" a  b\n", "\t"],
        "a list": lambda: TEXTS,
        "a list of one": lambda: TEXTS[:1],
        "equal texts": lambda: TEXTS[:1] * 3,
        "a tuple": lambda: tuple(TEXTS),
        "an array of strings": lambda: np.array(TEXTS),
        "an array of objects": lambda: np.array(TEXTS, object),
        "no texts": lambda: [],
        "a text that is cut": lambda: [LONG, "a"],
        "a record": lambda: {"text": TEXTS[0]},
        "a list of records": lambda: [{"text": t} for t in TEXTS],
        "records and strings": lambda: [{"text": TEXTS[0]}, TEXTS[1]],
        "a dict of texts": lambda: {"query": "a", "document": "b"},
        "a number": lambda: 5,
        "None": lambda: None,
        "a list of None": lambda: [None],
        "bytes": lambda: b"abc",
        "a set": lambda: set(TEXTS),
        "a generator": lambda: (t for t in TEXTS),
        "pairs of texts": lambda: [("a", "b"), ("c", "d")],
    }
    for method in METHODS:
        for name, form in forms.items():
            yield f"{method}({name})", lambda m, method=method, form=form: getattr(m, method)(form())


def option_calls() -> Iterator[tuple[str, Call]]:
    """Every option, alone and with others, for one text and for several."""
    options: list[dict[str, Any]] = [
        *({"prompt": p} for p in ("query: ", "")),
        *({"prompt_name": n} for n in ("query", "nope", None)),
        *({"batch_size": n} for n in (1, 3, np.int64(2), 0, 2.5)),
        *({"show_progress_bar": s} for s in (True, False, None)),
        *({"output_value": v} for v in ("sentence_embedding", "token_embeddings", None)),
        *({"precision": p} for p in ("float32", "int8", "uint8", "binary", "ubinary", None, "int4")),
        *({"convert_to_numpy": c} for c in (True, False)),
        *({"convert_to_tensor": c} for c in (True, False)),
        {"convert_to_numpy": True, "convert_to_tensor": True},
        *({"device": d} for d in ("cpu", "cpu:0", None)),
        *({"normalize_embeddings": n} for n in (True, False)),
        *({"truncate_dim": n} for n in (1, 100, 384, 1000, None, 2.5)),
        *({"chunk_size": n} for n in (2, None)),
        {"pool": None},
        {"task": "query"},
        {"nope": 1},
        {"normalize_embeddings": True, "truncate_dim": 64},
        {"convert_to_tensor": True, "precision": "binary"},
        {"convert_to_tensor": True, "normalize_embeddings": True, "truncate_dim": 64, "batch_size": 2},
        {"convert_to_numpy": False, "precision": "uint8"},
        {"output_value": "token_embeddings", "prompt": "query: "},
        {"output_value": "token_embeddings", "convert_to_numpy": False},
        {"output_value": "token_embeddings", "precision": "int8"},
        {"output_value": "token_embeddings", "normalize_embeddings": True, "truncate_dim": 8},
        {"output_value": None, "prompt": "query: ", "truncate_dim": 8},
    ]
    for given in options:
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())
        for form, texts in (("text", TEXTS[0]), ("texts", TEXTS)):
            yield f"encode({form}, {said})", lambda m, t=texts, o=given: m.encode(t, **o)
        if "task" not in given:  # theirs passes it a second time
            yield f"encode_query(texts, {said})", lambda m, o=given: m.encode_query(TEXTS, **o)
    yield "encode(sentences=)", lambda m: m.encode(sentences=TEXTS)
    yield "encode_query(sentences=)", lambda m: m.encode_query(sentences=TEXTS)
    places = (None, None, 2, False, "sentence_embedding", "float32", True, False, "cpu", True, 9)
    for method in METHODS:
        yield f"{method}(by places)", lambda m, method=method: getattr(m, method)(TEXTS, *places)


def similarity_calls() -> Iterator[tuple[str, Call]]:
    import torch

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 8), np.float32), rng.standard_normal((3, 8), np.float32)
    forms: dict[str, tuple[Any, Any]] = {
        "matrices": (a, b),
        "one and many": (a[0], b),
        "many and one": (a, b[0]),
        "two single ones": (a[0], b[0]),
        "a row and many": (a[:1], b),
        "lists": (a.tolist(), b.tolist()),
        "lists of arrays": ([*a], [*b]),
        "float64": (a.astype(float), b.astype(float)),
        "float16": (a.astype(np.float16), b.astype(np.float16)),
        "tensors": (torch.tensor(a), torch.tensor(b)),
        "bfloat16": (torch.tensor(a).bfloat16(), torch.tensor(b).bfloat16()),
        "gradients": (torch.tensor(a, requires_grad=True), torch.tensor(b)),
        "lists of tensors": ([*torch.tensor(a)], [*torch.tensor(b)]),
        "different numbers": (a[:2], b),
        "different lengths": (a[:, :4], b),
    }
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        for form, (x, y) in forms.items() if name in ("cosine", "euclidean") else [*forms.items()][:5]:
            for method in ("similarity", "similarity_pairwise"):

                def call(m: Any, name: str = name, method: str = method, x: Any = x, y: Any = y) -> Any:
                    m.similarity_fn_name = name
                    return getattr(m, method)(x, y)

                yield f"{method}({form}) by {name}", call


def method_calls(folder: Path) -> Iterator[tuple[str, Call]]:
    from sentence_transformers import SimilarityFunction

    for name in ("get_embedding_dimension", "get_sentence_embedding_dimension", "get_max_seq_length", "__len__"):
        yield f"{name}()", lambda m, name=name: getattr(m, name)()
    for texts in (TEXTS, TEXTS[:1], [LONG]):
        yield f"tokenize({len(texts)} texts)", lambda m, texts=texts: dict(m.tokenize(texts))
    yield "preprocess(prompt=)", lambda m: dict(m.preprocess(TEXTS, prompt="query: "))
    yield "max_seq_length", lambda m: m.max_seq_length
    yield "max_seq_length = 8", lambda m: changed(m, "max_seq_length", 8).encode(TEXTS)
    yield "similarity_fn_name", lambda m: m.similarity_fn_name
    for value in ("dot", None, SimilarityFunction.EUCLIDEAN, "nope"):
        yield f"similarity_fn_name = {value}", lambda m, value=value: changed(m, "similarity_fn_name", value).similarity_fn_name
    for dims in (5, 1000, None):
        yield f"truncate_dim = {dims}", lambda m, dims=dims: changed(m, "truncate_dim", dims).encode(TEXTS)
        yield f"dimension at {dims}", lambda m, dims=dims: changed(m, "truncate_dim", dims).get_embedding_dimension()
    yield "prompts = ", lambda m: changed(m, "prompts", {"query": "q: "}).encode_query(TEXTS)
    yield (
        "default_prompt_name = ",
        lambda m: changed(changed(m, "prompts", {"a": "q: "}), "default_prompt_name", "a").encode(TEXTS),
    )

    def truncated(m: Any) -> Any:
        with m.truncate_embeddings(6):
            inside = m.encode(TEXTS)
        return [inside, m.encode(TEXTS)]

    yield "truncate_embeddings", truncated
    for name, arguments in {"to": ["cpu"], "eval": [], "cpu": []}.items():
        yield f"{name}() is itself", lambda m, name=name, arguments=arguments: getattr(m, name)(*arguments) is m
    yield "half()", lambda m: copy.deepcopy(m).half().encode(TEXTS)
    yield "copy", lambda m: copy.deepcopy(m).encode(TEXTS)
    yield "pickle", lambda m: pickle.loads(pickle.dumps(m)).encode(TEXTS)
    yield "modules by number", lambda m: [type(m[i]).__name__ for i in (1, 2, -1)]
    yield "no such module", lambda m: m[9]
    for method in ("save", "save_pretrained"):

        def saved(m: Any, method: str = method) -> Any:
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / "saved"
                getattr(changed(m, "prompts", {"query": "q: "}), method)(str(path))
                return [open_as(model, path).encode_query(TEXTS) for model in (Encoder, type(m))]

        yield method, saved


def changed(model: Any, name: str, value: Any) -> Any:
    setattr(model, name, value)
    return model


def constructor_calls(folder: Path) -> Iterator[tuple[str, Call]]:
    import torch

    options: list[dict[str, Any]] = [
        {"model_name_or_path": str(folder)},
        *({"device": d} for d in ("cpu", torch.device("cpu"), "cuda", "mps")),
        *({"prompts": p} for p in ({"query": "q: "}, {"query": "q: ", "document": None}, {})),
        {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
        {"default_prompt_name": "nope"},
        *({"similarity_fn_name": s} for s in ("dot", None, "nope")),
        *({"truncate_dim": n} for n in (7, 1000, None)),
        {"trust_remote_code": False},
        {"trust_remote_code": True},
        *({"backend": b} for b in ("torch", "onnx")),
        *({name: v} for name in ("model_kwargs", "processor_kwargs", "config_kwargs") for v in ({}, None)),
        {"model_kwargs": {"attn_implementation": "eager"}},
        {"config_kwargs": {"num_hidden_layers": 2}},
        {"revision": None, "token": None, "cache_folder": None, "local_files_only": True},
        {"use_auth_token": None},
        {"nope": 1},
    ]
    for given in options:
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())

        def call(m: Any, given: dict[str, Any] = given) -> Any:
            return open_as(type(m), *([] if "model_name_or_path" in given else [folder]), **given).encode_query(TEXTS)

        yield f"Model({said})", call


def open_as(kind: type, *folder: Path, **options: Any) -> Any:
    return kind(*map(str, folder), **{"device": "cpu", **options})


def same(ours: Any, theirs: Any) -> bool:
    """Equal but for rounding. Both have the same shape, the same type of numbers, and are lists or dicts alike."""
    if isinstance(ours, list | tuple) or isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and same_records(ours, theirs)
    if isinstance(ours, str | bool | int | None):
        return type(ours) is type(theirs) and ours == theirs
    if hasattr(ours, "detach") and not hasattr(theirs, "detach"):
        return False
    x, y = (np.asarray(v.detach().cpu().numpy() if hasattr(v, "detach") else v) for v in (ours, theirs))
    if x.size == y.size == 0:
        return len(x) == len(y)  # theirs has lost its width and its type
    if x.shape != y.shape or x.dtype.kind != y.dtype.kind:
        return False
    if x.dtype == np.int64:
        return np.array_equal(x, y)
    if x.dtype.kind in "iu":  # a value close to the border of two steps, or to zero, may fall on either side
        close = np.abs(x.astype(int) - y.astype(int)).max() <= 1 or (x != y).mean() <= 0.02
        return x.dtype == y.dtype and bool(close)
    return bool(np.abs(x - y).max() <= 2e-5 * max(1.0, np.abs(y).max()))


def same_records(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Records of tokens; those of a batch of theirs are padded to its longest text, and hold what ours has no use for."""
    theirs = {name: value for name, value in theirs.items() if name not in ("modality", "prompt_length")}
    if ours.keys() != theirs.keys():
        return False
    if "token_embeddings" in ours:
        length = int(theirs["attention_mask"].sum())
        theirs = {name: value if name == "sentence_embedding" else value[:length] for name, value in theirs.items()}
    return all(same(ours[name], theirs[name]) for name in ours)


def outcome(call: Call, model: Any) -> tuple[Any, Exception | None]:
    try:
        return call(model), None
    except Exception as error:
        return None, error


def compare(folder: Path) -> list[tuple[str, str, str]]:
    """(call, "same", "neither", "refused", "more" or "different", what ours says) of every call."""
    from sentence_transformers import SentenceTransformer

    found = []
    names = "prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "max_seq_length"
    models = open_as(Encoder, folder), open_as(SentenceTransformer, folder)
    before = [{name: copy.copy(getattr(model, name)) for name in names} for model in models]
    calls = [*input_calls(), *option_calls(), *similarity_calls(), *method_calls(folder), *constructor_calls(folder)]
    for name, call in calls:
        (ours, error), (theirs, their_error) = (outcome(call, model) for model in models)
        if error is None and their_error is None:
            verdict, said = ("same", "") if same(ours, theirs) else ("different", f"{describe(ours)}, theirs {describe(theirs)}")
        elif error is None:
            verdict, said = "more", describe(ours)
        elif their_error is not None:
            verdict, said = "neither", str(error)
        else:
            verdict, said = "refused" if isinstance(error, ValueError | TypeError) else "different", f"{error}"
        found.append((name, verdict, said))
        for model, values in zip(models, before, strict=True):
            for attribute, value in values.items():
                with suppress(AttributeError):
                    setattr(model, attribute, copy.copy(value))
    return found


def describe(value: Any) -> str:
    if isinstance(value, list) and value:
        return f"{len(value)} x {describe(value[0])}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {describe(v)}' for k, v in value.items())}}}"
    return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}" if hasattr(value, "dtype") else repr(value)[:60]


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare(Path(sys.argv[1]))
    for name, verdict, said in found:
        if verdict not in ("same", "neither"):
            print(f"{verdict:9}  {name}: {said}")
    print(len(found), "calls:", dict(Counter(verdict for _, verdict, _ in found)))


if __name__ == "__main__":
    main()
