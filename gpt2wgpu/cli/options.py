"""Options that several commands share. An option has the name of the keyword of `Encoder` or `encode` that it sets."""

import re
import sys
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError, show
from ..progress import notice

if TYPE_CHECKING:
    from ..encoder import Encoder

MODEL, TEXT = "Model", "Texts"
Command = Callable[..., None]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="the built-in one",
        help="A folder in Hugging Face or sentence-transformers layout, or a name on the hub (`gpt2wgpu models`).",
        rich_help_panel=MODEL,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(metavar="NAME", show_default="main", help="Branch, tag or commit of a model on the hub.", rich_help_panel=MODEL),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto: a GPU if there is one, else numpy. numpy: the CPU. gpu: a GPU, or a software driver if there is none. "
        "Or the number or name of an adapter from `gpt2wgpu info`.",
        envvar="GPT2WGPU_DEVICE",
        rich_help_panel=MODEL,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of the texts; a number if the file has no header.", rich_help_panel=TEXT),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def model_options(
    model: ModelOption = None,
    revision: Revision = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str,
        typer.Option(metavar="TYPE", help="Dtype of the weights: auto, float32, float16 or int8.", rich_help_panel=MODEL),
    ] = "auto",
    layer: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="the model's",
            help="Use the hidden state after this block; later blocks are not run.",
            rich_help_panel=MODEL,
        ),
    ] = None,
) -> None:
    """Which model computes, and where."""


def vector_options(
    pooling: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the model's",
            help="mean, cls, max, last, weighted_mean or sqrt_len_mean.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(metavar="N", help="Keep only the first N dimensions.", rich_help_panel=MODEL)
    ] = None,
    max_seq_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS", show_default="the model's", help="Cut texts that are longer than this.", rich_help_panel=MODEL
        ),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Most tokens in a batch; bounds memory.", rich_help_panel=MODEL)
    ] = None,
) -> None:
    """How the model turns a text into a vector."""


def postprocess_options(
    postprocess: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Repair vectors by steps fitted on --fit: centre, standardise, whiten:K, remove_top:K, or several with commas.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Unlabelled texts, or pairs, that --postprocess is fitted on.", rich_help_panel=MODEL),
    ] = None,
) -> None:
    """What is done with vectors afterwards."""


def text_options(
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Put this before each text.", rich_help_panel=TEXT),
    ] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Put the model's prompt of this name before each text.", rich_help_panel=TEXT),
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each vector to length 1.", rich_help_panel=TEXT)] = False,
    no_truncate: Annotated[
        bool, typer.Option("--no-truncate", help="Refuse texts that are too long instead of cutting them.", rich_help_panel=TEXT)
    ] = False,
) -> None:
    """How texts are encoded."""


def with_options(*shared: Command) -> Callable[[Command], Command]:
    """Give a command the parameters that these functions declare, after its own. Their values are in `ctx.params`."""

    def decorate(command: Command) -> Command:
        own = [*signature(command).parameters.values()]
        added = [parameter for declared in shared for parameter in signature(declared).parameters.values()]

        def run_command(**values: Any) -> None:
            command(**{parameter.name: values[parameter.name] for parameter in own})

        run_command.__name__, run_command.__doc__ = command.__name__, command.__doc__
        run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
        parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in (*own, *added)]
        run_command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return run_command

    return decorate


def load_encoder(ctx: typer.Context) -> "Encoder":
    """The Encoder that a command's options describe. Says on stderr why no GPU is used, unless numpy was asked for."""
    from ..encoder import Encoder

    steps, fit = ctx.params.get("postprocess"), ctx.params.get("fit")
    if (steps is None) != (fit is None):
        raise typer.BadParameter("--postprocess STEPS is fitted on --fit FILE: give both")
    encoder = Encoder(**encoder_options(ctx))
    if encoder.device == "numpy" and ctx.params["device"] == "auto":
        notice(encoder.engine.place.reason)
    if steps is None or fit is None:
        return encoder
    from ..files.pairs import read_sentences
    from ..vectors.postprocess import parse_steps

    parse_steps(steps)  # before a long file is read
    prompts = {name: ctx.params[name] for name in ("prompt", "prompt_name") if ctx.params.get(name)}
    return encoder.with_postprocessing(steps, [*dict.fromkeys(read_sentences(fit))], **prompts)


def encoder_options(ctx: typer.Context) -> dict[str, Any]:
    """The keywords of `Encoder` that a command's options set."""
    names = [*signature(model_options).parameters, *signature(vector_options).parameters]
    return {name: ctx.params[name] for name in names if name in ctx.params}


def encode_options(ctx: typer.Context) -> dict[str, Any]:
    """The keywords of `encode` that a command's options set."""
    p = ctx.params
    check_decoded(p["prompt"])
    return {
        "prompt": p["prompt"],
        "prompt_name": p["prompt_name"],
        "normalize_embeddings": p["normalize"],
        "truncate": not p["no_truncate"],
    }


def check_decoded(*texts: str | None) -> None:
    """Raise UserError for a text of the command line that Python could not decode, whose bytes are surrogates then."""
    for text in texts:
        if text is not None and re.search("[\udc80-\udcff]", text):
            name = sys.getfilesystemencoding()
            if name.lower() == "utf-8":
                raise UserError(f"{show(text)} is not UTF-8: give texts in that encoding")
            where = f"the encoding of this locale (LC_ALL, LC_CTYPE, LANG) is {name}"
            raise UserError(f"{show(text)} cannot be decoded, as {where}: set LC_ALL=C.UTF-8 or PYTHONUTF8=1")
