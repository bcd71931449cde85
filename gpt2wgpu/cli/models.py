"""The commands `pull`, `models` and `convert`: parse and print."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, ModelOption, Revision


def pull_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="org/name, or a bare name such as gpt2 or all-MiniLM-L6-v2.")],
    revision: Revision = None,
) -> None:
    """Download a model from the Hugging Face hub, and print its folder.

    Only the files that are needed, never a pickle, go to huggingface_hub's cache (HF_HOME). Files in the cache are not
    downloaded again, and an interrupted download resumes. Private and gated models need a token: HF_TOKEN, or `hf auth login`.
    Other commands download a missing model themselves; pull also updates a cached one.
    """
    from .. import hub

    print(hub.pull_model(name, revision=revision))


def models_command(as_json: Json = False) -> None:
    """List models that are known to work, and which of them are in the cache.

    Other models of these families work too (README).
    """
    from .. import hub
    from ..hub.known import MODELS

    rows = [{**m._asdict(), "prompts": list(m.prompts), "cached": hub.is_cached(m.name)} for m in MODELS]
    if as_json:
        units = {"parameters": "million_parameters", "download": "megabytes"}
        rows = [{units.get(key, key): value for key, value in row.items() if key != "own"} for row in rows]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    wide = max(len(m.name) for m in MODELS)
    print(f"{'name':<{wide}}  {'weights':>8}  {'MB':>5}  {'dims':>5}  {'pooling':<18}  {'prompts':<30}  cached")
    for m, row in zip(MODELS, rows, strict=True):
        print(
            f"{m.name:<{wide}}  {f'{m.parameters:,} M':>8}  {m.download:5}  {m.dimensions:5}  {m.pooling:<18}  "
            f"{', '.join(m.prompts) or '-':<30}  {'yes' if row['cached'] else 'no'}"
        )
    print("\na bare name means sentence-transformers/NAME, except for some such as gpt2; MB: size of the files on the hub")


def convert_command(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write to; new or empty.", show_default=False)
    ],
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="Dtype of the weights in it: int8, float16 or float32.", show_default=False)
    ],
    model: ModelOption = None,
    revision: Revision = None,
) -> None:
    """Write a model's folder in another dtype, and print the bytes of its weights.

    int8: matrices with a scale for each 64 weights, about half of float16. Only this package loads such a folder; convert it
    to float16 for transformers and sentence-transformers.
    """
    from ..encoder import Encoder

    with Encoder(model, revision=revision, device="numpy", dtype="int8") as encoder:  # the least memory
        encoder.save_pretrained(output, dtype=dtype)
    print(sum(file.stat().st_size for file in Path(output).rglob("*.safetensors")))
