"""Commands about settings: presets and config."""

from typing import Annotated

import typer

from services.launcher.cli.options import INSPECT, AsJson, Config, Settings

commands = typer.Typer()


@commands.command(rich_help_panel=INSPECT)
def presets(
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="[PRESET]…", help="These alone: names, or files of your own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the presets, each with what it does and where it is published.

    - `ibtpo presets`
    """
    from services.launcher.commands.presets import list_presets

    raise typer.Exit(list_presets(presets or (), as_json=as_json))


@commands.command(rich_help_panel=INSPECT)
def config(
    settings: Settings = None,
    config: Config = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", metavar="A B", help="How two presets or files differ; settings count for the second."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --diff: print JSON.")] = False,
) -> None:
    """Explains every setting; with a preset or settings, prints the whole configuration as a TOML file.

    - `ibtpo config` – or, for some of them, `ibtpo config lr beta`

    - `ibtpo config my_pkg.mine:MySampler` – those of a part of your own

    - `ibtpo config --config demo sampler=random lr=1e-4 > mine.toml`

    - `ibtpo config --diff grpo dapo` – every key whose values differ
    """
    from services.launcher.commands.explain import explain, explain_difference

    if as_json and diff is None:
        raise typer.BadParameter("--json belongs to --diff: give two presets, such as --diff grpo dapo")
    if diff is not None and config is not None:
        raise typer.BadParameter("--diff names both presets: leave out --config")
    if diff is not None:
        raise typer.Exit(explain_difference(diff, tuple(settings or ()), as_json=as_json))
    raise typer.Exit(explain(config, tuple(settings or ())))
