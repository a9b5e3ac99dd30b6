"""Which runs belong together: those that differ in nothing but their seed, or as the user says."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from services.launcher.report.reported_run import ReportedRun, open_run
from services.learner.record.tracking import Scalar
from shared.errors import InvalidInput

_OF_A_RUN = re.compile(
    r"learner\.(run|run_dir|seed|resume|tracker.*|wandb\..*|mlflow\..*|swanlab\..*|linger_seconds|keep_.*)"
    r"|rollout\.run|launcher\.(ready|stop|refresh)_seconds|.*\.log_(level|json)"
)
"""Settings that do not change what is learnt."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that are one line of the report."""

    name: str
    runs: tuple[ReportedRun, ...]

    @property
    def label(self) -> str:
        """The name, with how many runs it stands for."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} runs)"


def read_groups(runs: Path, arguments: Sequence[str]) -> tuple[Group, ...]:
    """`RUN …` by their settings, `NAME=RUN,RUN` as it says. InvalidInput for what is no run, or named twice."""
    named: dict[str, list[ReportedRun]] = {}
    loose: list[ReportedRun] = []
    seen: set[str] = set()
    for argument in arguments:
        name, members = _split(runs, argument)
        found = [ReportedRun.read(open_run(runs, member)) for member in members]
        fresh = [one for one in found if os.path.realpath(one.directory.root) not in seen]
        seen |= {os.path.realpath(one.directory.root) for one in fresh}
        if name is None:
            loose += fresh
        else:
            named.setdefault(name, []).extend(fresh)
    groups = [(name, members) for name, members in named.items() if members]
    by_settings: dict[object, list[ReportedRun]] = {}
    for run in loose:
        by_settings.setdefault(_settings_key(run), []).append(run)
    groups += [(_common_name(members), members) for members in by_settings.values()]
    return _with_own_names(groups)


def _split(runs: Path, argument: str) -> tuple[str | None, list[str]]:
    """The group's name, None where none is given, and its runs."""
    name, equals, members = argument.partition("=")
    if not equals or Path(argument).is_dir() or (runs / argument).is_dir():
        return None, [argument]
    listed = [member for member in members.split(",") if member]
    if not name or not listed:
        raise InvalidInput(f"a group reads NAME=RUN,RUN, not {argument!r}")
    return name, listed


def _settings_key(run: ReportedRun) -> object:
    """Equal for runs that differ in their seed alone; a run without settings is like none."""
    if not run.config:
        return run.directory.root
    return tuple(sorted((key, value) for key, value in run.config.items() if not _OF_A_RUN.fullmatch(key)))


def _common_name(members: Sequence[ReportedRun]) -> str:
    """`ib` for ib-s0 and ib-s1; all names where they begin with nothing in common."""
    names = [run.name for run in members]
    if len(names) == 1:
        return names[0]
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    common = re.sub(r"[-_. ]*(seed|s)?[-_. ]*\d*$", "", "".join(column[0] for column in letters))
    return common or " + ".join(names)


def _with_own_names(groups: Sequence[tuple[str, Sequence[ReportedRun]]]) -> tuple[Group, ...]:
    """Groups of one name get a number."""
    found: dict[str, Group] = {}
    for name, members in groups:
        number, own = 2, name
        while own in found:
            own, number = f"{name} {number}", number + 1
        found[own] = Group(own, tuple(members))
    return tuple(found.values())


def config_differences(groups: Sequence[Group]) -> Mapping[str, tuple[str, ...]]:
    """The settings in which runs differ, each with its value in every group."""
    runs = [run for group in groups for run in group.runs if run.config]
    keys = dict.fromkeys(key for run in runs for key in run.config)
    kept = (key for key in keys if not _OF_A_RUN.fullmatch(key) or key == "learner.seed")
    return {
        key: tuple(_values(group, key) for group in groups)
        for key in kept
        if len({run.config.get(key) for run in runs}) > 1
    }


def _values(group: Group, key: str) -> str:
    values: list[Scalar | None] = [run.config.get(key) for run in group.runs if run.config]
    return ", ".join(dict.fromkeys("–" if value is None else str(value) for value in values)) or "?"
