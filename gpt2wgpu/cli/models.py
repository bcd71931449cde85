"""The commands about models of the hub: `pull` and `models`. Parse and print."""

import json
from typing import Annotated

import typer

from .options import Json, Revision


def pull_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="org/name, or a bare name such as gpt2 or all-MiniLM-L6-v2.")],
    revision: Revision = None,
) -> None:
    """Download a model of the Hugging Face hub, and print its folder.

    Only what is needed, and never a pickle, goes to the cache that huggingface_hub uses too (HF_HOME); what is there is not
    downloaded again, and what broke off goes on where it was. Private and gated models need a token: HF_TOKEN, or `hf auth
    login`. Other commands download a model that is missing by themselves; pull also brings one up to date.
    """
    from .. import hub

    print(hub.pull_model(name, revision=revision))


def models_command(as_json: Json = False) -> None:
    """List models that are known to work, and which of them are in the cache.

    Any other model of these families works too (README).
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
    print("\na bare name means sentence-transformers/NAME, but for gpt2 and the like; sizes are those of the files on the hub")
