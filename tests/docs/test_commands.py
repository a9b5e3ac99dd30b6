"""No page tells its reader to type a command that the command line refuses."""

import re
from importlib.util import find_spec
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from services.launcher.cli import app
from services.launcher.cli.options import with_task
from services.launcher.settings.plan import SECTIONS, preview
from shared.errors import InvalidInput
from shared.kinds import is_path
from shared.runtime.config import find_keys, preset_names, resolve_overrides
from tests.docs.shell import ROOT, Command, commands, pages

IBTPO = get_command(app)

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ALL = [command for page in pages() for command in commands(page)]


OF_RECIPES = {"sampler=variance"}
"""Settings of what CONTRIBUTING has its reader write."""


def ibtpo_arguments(command: Command) -> tuple[str, ...] | None:
    """What follows `ibtpo`, also in a container; None for another command."""
    for place, word in enumerate(command.words[:-1]):
        before = command.words[place - 1] if place else ""
        if word.rpartition("/")[2] == "ibtpo" and before not in ("-n", "generic", "namespace", "name:"):
            return command.words[place + 1 :]
    return None


def parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    """The parameters that the command would be called with; it is not run."""
    command = IBTPO
    while isinstance(command, TyperGroup):
        assert arguments[0] in command.commands, f"there is no command {arguments[0]!r}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if not arguments:  # its name alone, as sentences have it
        return {}
    return command.make_context("ibtpo", list(arguments)).params


def check(arguments: tuple[str, ...]) -> None:
    parameters = parse(arguments)
    settings = [
        setting for setting in parameters.get("settings") or () if not setting.isupper() and setting not in OF_RECIPES
    ]
    if arguments[0] == "config":
        for name in settings:
            if "=" not in name and not is_path(name):  # a part of the reader's own
                find_keys(name, SECTIONS)
        settings = [setting for setting in settings if "=" in setting]
    service = arguments[0] if arguments[0] in SECTIONS else None
    resolve_overrides(settings, {service: SECTIONS[service]} if service else SECTIONS)
    preset = parameters.get("config")
    assert preset is None or preset.endswith(".toml") or preset.isupper() or preset in preset_names(), preset
    if arguments[0] in ("demo", "train") and (preset or "demo") in preset_names():
        preview(preset or "demo", with_task(parameters.get("task"), settings))


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in pages()])
def test_every_ibtpo_command_of_a_page_is_understood(page: str) -> None:
    wrong = []
    for command in ALL:
        arguments = ibtpo_arguments(command) if command.page == page else None
        if not arguments or arguments[0] in ("--version", "--help"):
            continue
        try:
            check(arguments)
        except (TyperException, InvalidInput, AssertionError) as error:
            wrong.append(f"{command}\n    {error}")
    assert not wrong, "\n".join(wrong)


def test_every_target_that_a_page_makes_exists() -> None:
    made = {(command.page, word) for command in ALL if command.words[:1] == ("make",) for word in command.words[1:2]}
    assert made
    assert {(page, word) for page, word in made if word not in TARGETS and word.islower()} == set()


def test_every_module_that_a_page_runs_exists() -> None:
    ours = ("services.", "shared.", "benchmarks.", "deploy.", "tests.", "ibtpo.")
    run = {
        (command.page, module)
        for command in ALL
        for flag, module in zip(command.words, command.words[1:], strict=False)
        if flag == "-m" and module.startswith(ours)
    }
    assert run
    assert {(page, module) for page, module in run if find_spec(module) is None} == set()
