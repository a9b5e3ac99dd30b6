"""Commands about settings: config."""

import typer

from services.launcher.cli.options import INSPECT, Config, Settings

commands = typer.Typer()


@commands.command(rich_help_panel=INSPECT)
def config(settings: Settings = None, config: Config = None) -> None:
    """Explains every setting; with a preset or settings, prints the whole configuration as a TOML file.

    - `ibtpo config` – or, for some of them, `ibtpo config lr beta`

    - `ibtpo config --config demo sampler=random lr=1e-4 > mine.toml`
    """
    from services.launcher.commands.explain import explain

    raise typer.Exit(explain(config, tuple(settings or ())))
