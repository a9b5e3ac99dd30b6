"""Decides what a launch does: which run directory, anew or resumed, with which effective configuration."""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from services.demo.data import write_data
from services.demo.task import checkpoint_directory
from services.launcher.runs import run_dir
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.config import DemoTask, LocalConfig
from services.launcher.settings.overrides import sort_out
from services.launcher.settings.toml_text import to_toml
from services.learner.config import LearnerConfig
from services.rollout.config import RolloutConfig
from services.verifier.config import VerifierConfig
from shared.errors import Conflict, InvalidInput
from shared.runtime.config import load_config, preset_path

SECTIONS: dict[str, type[BaseModel]] = {
    "learner": LearnerConfig,
    "rollout": RolloutConfig,
    "verifier": VerifierConfig,
    "local": LocalConfig,
}
_PRIVATE = {"token", "redis_url", "url_file"}
"""Never in a saved configuration: secrets travel in the environment, URL files belong to a launch."""


class Start(StrEnum):
    """What to do about a run directory that is there already."""

    AUTO = "auto"
    """Resume an unfinished run that was begun with the same settings; leave any other alone."""
    RESUME = "resume"
    FRESH = "fresh"
    """Begin anew; the old directory is kept under another name."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for. `name` None: the preset's name, or with a number where that one is taken."""

    name: str | None
    preset: str
    overrides: tuple[str, ...]
    start: Start = Start.AUTO


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a launch needs to know."""

    run: RunDirectory
    learner: LearnerConfig
    local: LocalConfig
    config_text: str
    resumes: bool


def make_plan(runs: Path, wish: Wish) -> Plan:
    """Finds the run directory that the wish means. Nothing is written yet.

    Conflict when that run is going on, or is there and nothing says what to do with it; InvalidInput for a wrong key.
    """
    name = wish.name or preset_path(wish.preset).stem
    given = sort_out(wish.overrides, SECTIONS)
    for candidate in run_dir.names(runs, name, only=wish.name is not None or wish.start is not Start.AUTO):
        run = run_dir.named(runs, candidate)
        run.raise_if_running()
        if wish.start is Start.RESUME and not run.has_begun:
            raise InvalidInput(f"there is no run {name!r} in {runs}/ to resume: leave --resume out to begin it")
        if not run.has_begun or wish.start is Start.FRESH:
            return _planned(run, wish.preset, given, resumes=False)
        if wish.start is Start.RESUME:
            return _planned(run, run.config, given, resumes=True)
        plan = _planned(run, wish.preset, given, resumes=True)
        if not run.is_finished and plan.config_text == run.config.read_text():
            return plan
    raise _taken(run_dir.named(runs, name))


def preview(preset: str, overrides: tuple[str, ...]) -> str:
    """The effective configuration of a preset with overrides, as a run would save it."""
    run = run_dir.named(Path("runs"), preset_path(preset).stem)
    return _planned(run, preset, sort_out(overrides, SECTIONS), resumes=False).config_text


def prepare(plan: Plan) -> None:
    """Makes the run directory ready for its services; what a fresh start replaces is kept aside."""
    if not plan.resumes and plan.run.has_begun:
        _move_aside(plan.run)
    plan.run.make()
    if plan.local.task == "demo":
        _write_demo_data(plan.run, plan.local.demo)
    plan.run.write_private(plan.run.config, plan.config_text)


def _taken(run: RunDirectory) -> Conflict:
    state = "is finished" if run.is_finished else "was begun with other settings"
    return Conflict(
        f"run {run.name!r} {state} ({run.config}): --resume goes on with it, with its own settings and those given "
        "now; --fresh begins it anew and keeps the old one aside; --run takes another name"
    )


def _move_aside(run: RunDirectory) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(run.config.stat().st_mtime))
    run.root.rename(run.root.with_name(run_dir.free_name(run.root.parent, f"{run.name}.{stamp}")))


def _planned(run: RunDirectory, source: str | Path, given: dict[str, list[str]], *, resumes: bool) -> Plan:
    local = load_config(LocalConfig, "local", source, given["local"])
    ours = [f"learner.run={run.name}", f"learner.run_dir={run.root.resolve()}"]
    if local.task == "demo":
        ours += _demo_settings(run)
    learner = _with_absolute_paths(load_config(LearnerConfig, "learner", source, [*ours, *given["learner"]]))
    rollout = load_config(RolloutConfig, "rollout", source, [f"rollout.run={run.name}", *given["rollout"]])
    verifier = load_config(VerifierConfig, "verifier", source, given["verifier"])
    tables = {"local": local, "learner": learner, "rollout": rollout, "verifier": verifier}
    return Plan(run, learner, local, to_toml({name: _plain(table) for name, table in tables.items()}), resumes)


def _demo_settings(run: RunDirectory) -> list[str]:
    data = (run.root / "data").resolve()
    return [
        f"learner.model={checkpoint_directory()}",
        f"learner.data={data / 'train.jsonl'}",
        f"learner.held_out={data / 'heldout.jsonl'}",
    ]


def _write_demo_data(run: RunDirectory, demo: DemoTask) -> None:
    write_data(run.root / "data", demo.difficulty, demo.train_problems, demo.held_out_problems, demo.seed)


def _with_absolute_paths(learner: LearnerConfig) -> LearnerConfig:
    """The run can then be resumed from any directory."""
    return learner.model_copy(
        update={
            "model": learner.model.resolve(),
            "data": tuple(path.resolve() for path in learner.data),
            "held_out": tuple(path.resolve() for path in learner.held_out),
        }
    )


def _plain(config: BaseModel) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_none=True, exclude=_PRIVATE)
