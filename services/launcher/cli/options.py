"""Options that several commands have, and the panels of the help."""

from pathlib import Path
from typing import Annotated

import typer

TRAIN, SERVE, INSPECT = "Train on this machine", "Run one service", "Inspect"

_CONFIG = typer.Option("--config", "-c", help="A preset's name, or the path of a TOML file.")
PresetConfig = Annotated[str, _CONFIG]
Config = Annotated[str | None, _CONFIG]
Task = Annotated[
    str | None, typer.Option(metavar="demo|files", help="Whose problems: the demo's, with its model, or yours.")
]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; see `ibtpo config`.")]
Runs = Annotated[Path, typer.Option(help="The folder of the run directories.")]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name; by default the preset's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the existing run.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin the run again; the old directory is renamed.")]
Plain = Annotated[bool, typer.Option("--plain", help="Print a line per step instead of the live view.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="REDIS_URL", help="Use this Redis instead of starting one.")]
RunRedis = Annotated[str | None, typer.Option("--redis-url", envvar="REDIS_URL", help="The Redis of the run.")]
Token = Annotated[str | None, typer.Option(envvar="IBTPO_TOKEN", help="The services' token.", show_envvar=True)]
Model = Annotated[Path | None, typer.Option(help="A directory, or OWNER/NAME of the hub; by default the demo's.")]
RunArgument = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's name or directory; default: the latest.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_task(task: str | None, settings: list[str] | None) -> tuple[str, ...]:
    """The settings, and before them what --task says."""
    return (*([f"launcher.task={task}"] if task else []), *(settings or ()))
