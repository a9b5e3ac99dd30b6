"""Commands about problems: data import, data show and data formats."""

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Sources = Annotated[
    list[str], typer.Argument(metavar="SRC… KEY=VALUE…", help="Files, folders or hf:NAME; settings of a source.")
]
PromptModelOption = Annotated[Path | None, typer.Option("--model", help="Measure and show prompts as this model does.")]


@commands.command("import")
def data_import(
    given: Sources,
    out: Annotated[Path, typer.Option(help="The file to write; its reports lie beside it.")],
    format: Annotated[str | None, typer.Option(help="What the columns mean; else what fits them.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many problems of each source.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed takes others.")] = None,
    model: PromptModelOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Room for an answer beside the prompt.")] = 1,
    held_out: Annotated[list[str] | None, typer.Option(help="Drop what is in this set, too. Repeatable.")] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="Kinds of your own, for the verifier.")] = None,
    vet: Annotated[bool, typer.Option(help="Have a verifier read the answer keys.")] = True,
) -> None:
    """Makes one file of problems from files, folders and data sets of the hub, and says what it dropped and why.

    - `ibtpo data import hf:openai/gsm8k:main#train --out train.jsonl --model models/mine`

    - `ibtpo data import a.parquet b.csv --out train.jsonl --held-out held_out.jsonl --limit 5000`

    - `ibtpo data import mine.csv --out train.jsonl fields.prompt=question fields.gold=meta.answer`

    - `ibtpo data import dapo.parquet --out train.jsonl system_prompt="Think first." instruction=""`
    """
    from services.launcher.commands.data import DataArguments, import_data

    stated = {"format": format, "limit": limit, "seed": seed}
    settings = (f"{key}={value}" for key, value in stated.items() if value is not None)
    everything = (*given, *settings)
    raise typer.Exit(import_data(DataArguments(everything, model, tuple(held_out or ()), config, max_tokens, vet), out))


@commands.command("show")
def data_show(
    given: Sources,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many of each source.")] = 3,
    model: PromptModelOption = None,
) -> None:
    """Shows the first problems of a file or a data set, as a model reads them.

    - `ibtpo data show train.jsonl --model models/mine`

    - `ibtpo data show hf:HuggingFaceH4/MATH-500 -n 1`
    """
    from services.launcher.commands.data import DataArguments, show_data

    raise typer.Exit(show_data(DataArguments(tuple(given), model), rows))


@commands.command("formats")
def data_formats() -> None:
    """Lists the formats that are known by their columns, and public sets that have them."""
    from services.launcher.commands.data import list_formats

    raise typer.Exit(list_formats())
