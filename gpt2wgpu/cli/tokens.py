"""The commands `tokens create` and `tokens count`: parse and print."""

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import one_line
from ..progress import notice
from .options import Column, Json, ModelOption, Revision, check_decoded

app = typer.Typer(no_args_is_help=True, help="Make a tokenizer, or count and show the tokens of texts.")
Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILES",
        help="Texts: one per line; in .tsv, .csv and .jsonl the column text, or sentence1 and sentence2.",
        show_default=False,
    ),
]


@app.command()
def create(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write to.")],
    files: Files = None,
    column: Column = None,
    vocab: Annotated[int, typer.Option(metavar="N", help="The most tokens that the vocabulary may have.")] = 12288,
    min_frequency: Annotated[int, typer.Option(metavar="N", help="Merge pairs that occur at least N times.")] = 2,
    lower_case: Annotated[bool, typer.Option("--lower-case", help="Fold capitals and compatibility forms (NFKC).")] = False,
    characters: Annotated[
        bool,
        typer.Option("--characters", help='Learn nothing: each byte is a token, its id ("Hello" is 72, 101, 108, 108, 111).'),
    ] = False,
) -> None:
    """Learn a byte-pair vocabulary from texts.

    `train --tokenizer` and transformers read the folder. The same texts give the same files.
    """
    if characters == bool(files):
        raise typer.BadParameter("give either files to learn from, or --characters")
    from ..files.pairs import read_sentences
    from ..train import vocabulary

    folder = Path(output)
    vocabulary.check_new_folder(folder)
    if characters:
        tokenizer = vocabulary.make_byte_tokenizer(lower_case=lower_case)
    else:
        texts = (text for file in files or () for text in read_sentences(file, column))
        tokenizer = vocabulary.train_tokenizer(texts, vocab=vocab, min_frequency=min_frequency, lower_case=lower_case)
        if (found := tokenizer.get_vocab_size()) < vocab:
            notice(f"the texts give {found:,} tokens, not {vocab:,}: no other pair occurs {min_frequency} times")
    vocabulary.save_tokenizer(tokenizer, folder)
    print(f"{one_line(output)}: a vocabulary of {tokenizer.get_vocab_size():,} tokens")


@app.command()
def count(
    files: Files = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Show the tokens of this text instead.")] = None,
    column: Column = None,
    as_json: Json = False,
    model: ModelOption = None,
    revision: Revision = None,
) -> None:
    """Count the tokens of texts, or show those of one text.

    --model may also be a folder with only a tokenizer, such as `tokens create` makes.
    """
    if (text is not None) == bool(files):
        raise typer.BadParameter("give either files, to count their tokens, or --text TEXT, to show its tokens")
    from ..diagnose.token_report import count_tokens, find_tokenizer
    from ..files.pairs import read_sentences

    check_decoded(text)
    tokenizer = find_tokenizer(model, revision)
    if text is not None:
        ids = tokenizer.encode([text], 1 << 31)[0][0].tolist()
        names = defaultdict(str, ((i, token) for token, i in tokenizer.vocabulary().items()))
        if as_json:
            print(json.dumps({"text": text, "tokens": [{"id": i, "token": names[i]} for i in ids]}, ensure_ascii=False))
            return
        for i in ids:
            print(f"{i:>8}  {one_line(names.get(i, ''))}")
        return
    report = count_tokens(tokenizer, (t for file in files or () for t in read_sentences(file, column)))
    if as_json:
        frequent = [{"token": token, "id": i, "count": n} for token, i, n in report.frequent]
        print(json.dumps({**asdict(report), "frequent": frequent}, indent=2, ensure_ascii=False))
        return
    rows = {
        "texts": f"{report.texts:,}",
        "words": f"{report.words:,}",
        "tokens": f"{report.tokens:,}",
        "tokens per word": f"{report.tokens_per_word:.2f}",
        "tokens per text": f"mean {report.mean:.1f}, median {report.median:g}, 95 % up to {report.percentile_95:g}, "
        f"longest {report.longest:,}",
        "vocabulary": f"{report.vocabulary:,}",
        "unused": f"{report.unused:,} ({report.unused_share:.1%})",
        "unknown": f"{report.unknown:,} ({report.unknown_share:.2%})",
    }
    for name, value in rows.items():
        print(f"{name:<18}{value}")
    print("\nmost frequent")
    for token, i, n in report.frequent:
        print(f"{n:>12,} {n / report.tokens:6.2%}  {i:>8}  {one_line(token)}")
