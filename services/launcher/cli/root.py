"""The command line as a whole: every group of commands, and what an error looks like."""

import io
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from services.launcher.cli import answers, data, runs, serving, settings, training
from services.launcher.cli.options import TRAIN
from shared.errors import IbtpoError, InvalidInput, explain_missing_packages

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Post-trains language models with IB-TPO: samples answers as trees and learns from every branch.\n\n"
    "`ibtpo demo` trains a small model on this machine in a few minutes.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"ibtpo {version('ibtpo')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Only has the options of the command itself; the help stands above."""


for group in (training, serving, answers, runs, settings):
    app.add_typer(group.commands)
app.add_typer(
    data.commands, name="data", rich_help_panel=TRAIN, help="Problems: imports, shows and explains data sets."
)


def main() -> None:
    """The script's entry: prints our errors as one line on standard error, without a traceback."""
    if sys.getfilesystemencoding() != "utf-8":  # the locale's, in which names of files may be no text
        terminal = {"PYTHONIOENCODING": sys.stdout.encoding}
        os.execve(sys.executable, sys.orig_argv, os.environ | terminal | {"PYTHONUTF8": "1"})  # noqa: S606
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without our letters
    try:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # kinds of one's own are found, after all that is installed
    except FileNotFoundError:
        sys.exit("ibtpo: the directory in which this shell stands is gone: change to another one")
    try:
        with explain_missing_packages():
            app()
    except IbtpoError as error:
        print(f"ibtpo: {error.title}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InvalidInput) else 1)
    except OSError as error:  # of a file: a full disk, a directory that is another user's
        sys.exit(f"ibtpo: {error}")
