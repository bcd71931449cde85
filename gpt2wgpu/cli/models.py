"""The commands `pull` and `models`: parse and print."""

import json
from typing import Annotated

import typer

from .options import Json, Revision


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
