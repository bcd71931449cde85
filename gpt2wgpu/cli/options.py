"""Options that several commands share; an option's name is the keyword of `Encoder` or `encode` that it sets."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..encoder import Encoder

MODEL, TEXT = "Model", "Texts"
Model = Annotated[
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
        help="auto: a GPU if there is one, else numpy. numpy. gpu: a software driver if need be. "
        "Or an adapter's number or name as `gpt2wgpu info` lists them.",
        envvar="GPT2WGPU_DEVICE",
        rich_help_panel=MODEL,
    ),
]
DType = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="Of the weights: auto, float32, float16 or int8.", rich_help_panel=MODEL)
]
Layer = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default="the model's",
        help="Use the hidden state after this block; later ones are not run.",
        rich_help_panel=MODEL,
    ),
]
PoolingOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="the model's",
        help="mean, cls, max, last, weighted_mean or sqrt_len_mean.",
        rich_help_panel=MODEL,
    ),
]
TruncateDim = Annotated[int | None, typer.Option(metavar="N", help="Keep the first N dimensions only.", rich_help_panel=MODEL)]
MaxSeqLength = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", show_default="the model's", help="Cut longer texts there.", rich_help_panel=MODEL),
]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="TOKENS", help="Computed at a time: bounds memory.", rich_help_panel=MODEL)
]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="Put this before each text.", rich_help_panel=TEXT)]
PromptName = Annotated[
    str | None, typer.Option(metavar="NAME", help="The same with one of the model's own prompts.", rich_help_panel=TEXT)
]
NormalizeOption = Annotated[bool, typer.Option("--normalize", help="Scale each vector to length 1.", rich_help_panel=TEXT)]
NoTruncate = Annotated[
    bool, typer.Option("--no-truncate", help="Refuse texts that are too long instead of cutting them.", rich_help_panel=TEXT)
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of a file with columns; a number if it has no header.",
        rich_help_panel=TEXT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_encoder(ctx: typer.Context, **instead: Any) -> "Encoder":
    """The Encoder that a command's model options describe; `instead` comes before them."""
    from ..encoder import Encoder

    names = "model", "revision", "device", "dtype", "layer", "pooling", "truncate_dim", "max_seq_length", "max_tokens"
    return Encoder(**{name: ctx.params[name] for name in names} | instead)


def encode_options(ctx: typer.Context) -> dict[str, Any]:
    """The keywords of `encode` that a command's options set."""
    p = ctx.params
    return {
        "prompt": p["prompt"],
        "prompt_name": p["prompt_name"],
        "normalize_embeddings": p["normalize"],
        "truncate": not p["no_truncate"],
    }
