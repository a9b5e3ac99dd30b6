"""A run as a report reads it: what its folder holds, whatever is missing."""

import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from services.launcher.runs.history import SHARPENING, AccuracySeries, History, accuracies_by_set
from services.launcher.runs.run_dir import RunDirectory, find_run
from services.launcher.runs.run_state import FolderState, RunCondition, read_condition
from services.learner.config import LearnerConfig
from services.learner.record.tracking import Scalar, flatten_public
from shared.errors import InvalidInput
from shared.tree.credit import CREDITS

_SECRET = re.compile("token|password|secret|api_?key", re.IGNORECASE)


@dataclass(frozen=True)
class ReportedRun:
    directory: RunDirectory
    condition: RunCondition
    history: History
    summary: Mapping[str, object]
    config_text: str
    """Without secrets: reports are passed on."""

    @classmethod
    def read(cls, directory: RunDirectory) -> "ReportedRun":
        try:
            text = directory.config.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        condition = read_condition(directory)
        history = History.read(directory.metrics)
        return cls(directory, condition, history, directory.read_summary(), _without_secrets(text))

    @property
    def name(self) -> str:
        return self.directory.root.resolve().name

    @cached_property
    def config(self) -> dict[str, Scalar]:
        """The settings, flat; paths into the run's own folder begin with RUN."""
        try:
            flat = dict(flatten_public(tomllib.loads(self.config_text)))
        except tomllib.TOMLDecodeError:
            return {}
        if flat.get("launcher.task") == "demo":  # whose model comes with ibtpo, wherever that is installed
            flat.pop("learner.model", None)
        here = str(flat.get("learner.run_dir", ""))
        return {
            key: value.replace(here, "RUN") if here and isinstance(value, str) else value for key, value in flat.items()
        }

    @property
    def seed(self) -> str:
        return str(self.config.get("learner.seed", "–"))

    @property
    def method(self) -> str:
        """The advantage by its name, and the sampler."""
        advantage, sampler = self.summary.get("method"), self.config.get("learner.growth.sampler.kind")
        if not advantage:
            with contextlib.suppress(OSError, ValueError, KeyError):  # of another release
                learner = tomllib.loads(self.directory.config.read_text(encoding="utf-8"))["learner"]
                advantage = CREDITS.kind_of(LearnerConfig.model_validate(learner).advantage)
        return ", ".join(str(part) for part in (advantage, sampler) if part) or "–"

    @property
    def steps(self) -> int:
        return self.history.figures[-1].step if self.history.figures else 0

    @property
    def tokens(self) -> int:
        return sum(one.generated_tokens for one in self.history.figures)

    @property
    def seconds(self) -> float | None:
        """How long it went on."""
        total = self.summary.get("wall_seconds")
        if isinstance(total, int | float):
            return float(total)
        return self.history.figures[-1].run_seconds if self.history.figures else None

    @cached_property
    def accuracies(self) -> tuple[AccuracySeries, ...]:
        return accuracies_by_set(self.history.evaluations)

    @property
    def warnings(self) -> Iterator[str]:
        """What whoever reads its figures must know."""
        state = self.condition.state
        if state is FolderState.RUNNING:
            yield "it is going on: these are its figures so far"
        elif state is FolderState.FAILED:
            yield f"it failed: {self.condition.reason or 'its log says why'}"
        elif state is not FolderState.FINISHED:
            yield f"{state}: it has not taken its last step"
        if not self.directory.metrics.exists():
            yield "metrics.jsonl is missing: there are no curves"
        if not self.config_text:
            yield "config.toml is missing: its settings are not known"
        elif not self.config:
            yield "config.toml cannot be read: its settings are not known"
        if warning := self.summary.get("warning"):
            yield str(warning)
        release = self.summary.get("version")
        if release and release != version("ibtpo"):
            yield f"it is of ibtpo {release}, this report of {version('ibtpo')}"
        if self.accuracies and self.accuracies[0].is_sharpening:
            yield SHARPENING


def open_run(runs: Path, name: str) -> RunDirectory:
    """The run called `name`, or at that path; also one of which only a part is left. InvalidInput for what is none."""
    for path in (Path(name), runs / name):
        found = RunDirectory(path)
        if path.is_dir() and any(file.exists() for file in (found.config, found.metrics, found.summary)):
            return found
    if Path(name).is_dir():
        raise InvalidInput(f"{name} is no run's folder: it has no config.toml, metrics.jsonl or summary.json")
    return find_run(runs, name)


def _without_secrets(config_text: str) -> str:
    return "".join(map(_blank, config_text.splitlines(keepends=True)))


def _blank(line: str) -> str:
    """A setting whose name says that it is secret, and whose value is a text."""
    name, equals, value = line.partition(" = ")
    is_secret = equals and value.lstrip().startswith(('"', "'")) and _SECRET.search(name)
    return f'{name} = "***"\n' if is_secret else line
