"""Plans a launch: which run directory, fresh or resumed, with which configuration."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import tomli_w
from pydantic import BaseModel

from services.demo.data import write_data
from services.demo.task import checkpoint_directory
from services.launcher.runs import run_dir
from services.launcher.runs.model_files import check_model, find_model
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.config import LauncherConfig
from services.launcher.settings.deterministic import deterministic_settings
from services.launcher.settings.method import settings_of_demo, take_method
from services.learner.config import LearnerConfig
from services.learner.data.run_files import is_problem_file, move_files
from services.learner.queue.problems import check_rows
from services.learner.tracker_config import check_trackers
from services.rollout.config import RolloutConfig
from services.verifier.config import VerifierConfig
from shared.errors import Conflict, InvalidInput
from shared.files import atomic_write
from shared.hub import HubModel
from shared.runtime.config import load_config, preset_path, read_preset, resolve_overrides

SECTIONS: dict[str, type[BaseModel]] = {
    "learner": LearnerConfig,
    "rollout": RolloutConfig,
    "verifier": VerifierConfig,
    "launcher": LauncherConfig,
}
_PRIVATE = {"token", "redis_url", "url_file"}
"""Never saved: services get secrets through the environment, and every launch has its own URL files."""
_OPTIONS = {
    **dict.fromkeys(("run", "name"), "--run names a run"),
    "run_dir": "--runs and --run say where a run is",
    "resume": "--resume and --fresh say how a run begins",
    "redis_url": "--redis-url or REDIS_URL is the Redis of all services",
    "token": "IBTPO_TOKEN is the token of all services",
    **dict.fromkeys(
        ("host", "port", "url", "url_file", "verifier_url", "learner_url", "snapshots"),
        "the launcher connects the services by itself",
    ),
}
"""Keys of one service that all must agree on, each with what says it instead."""


class StartMode(StrEnum):
    """What to do when the run directory exists already."""

    AUTO = "auto"
    """Resume the run if it is unfinished and its settings are the same; else do not touch it."""
    RESUME = "resume"
    FRESH = "fresh"
    """Begin again; the old directory is kept under another name."""

    @classmethod
    def of(cls, *, resume: bool, fresh: bool) -> "StartMode":
        """The mode that --resume and --fresh ask for; InvalidInput for both."""
        if resume and fresh:
            raise InvalidInput("--resume and --fresh contradict each other: give one of them")
        return cls.RESUME if resume else cls.FRESH if fresh else cls.AUTO


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for. Without `name` the run is called as its preset, with a number if that name is taken."""

    name: str | None
    preset: str
    overrides: tuple[str, ...]
    start: StartMode = StartMode.AUTO


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to launch, and where."""

    run: RunDirectory
    learner: LearnerConfig
    rollout: RolloutConfig
    verifier: VerifierConfig
    launcher: LauncherConfig
    resumes: bool
    is_method_alone: bool = False
    """Whether the preset is made for another task, and only its method counts."""

    @property
    def config_text(self) -> str:
        """The configuration of all services, as config.toml."""
        tables = {name: getattr(self, name) for name in ("launcher", "learner", "rollout", "verifier")}
        return tomli_w.dumps(
            {name: one.model_dump(mode="json", exclude_none=True, exclude=_PRIVATE) for name, one in tables.items()}
        )

    @property
    def is_done(self) -> bool:
        """Whether the run is finished, and nothing that is asked for trains on."""
        return self.resumes and self.run.is_finished and self.run.config.read_text(encoding="utf-8") == self.config_text


def make_run_plan(runs: Path, request: RunRequest) -> RunPlan:
    """Finds the run directory for the request; writes nothing.

    Conflict when the run is going on, or exists and the request does not say what to do; InvalidInput for a wrong key.
    """
    name = request.name or preset_path(request.preset).stem
    given = _resolve(request.overrides)
    is_fixed = request.name is not None or request.start is not StartMode.AUTO
    for candidate in [name] if is_fixed else run_dir.candidate_names(runs, name):
        run = run_dir.directory_of(runs, candidate)
        run.raise_if_running()
        if request.start is StartMode.RESUME and not run.has_begun:
            raise InvalidInput(f"there is no run {name!r} in {runs}/ to resume: leave out --resume to begin it")
        if request.start is StartMode.RESUME:
            return _pin(_build_plan(run, run.config, given, resumes=True))
        plan = _pin(_build_plan(run, request.preset, given, resumes=False), keeps=request.start is StartMode.AUTO)
        if not run.has_begun or request.start is StartMode.FRESH:
            return plan
        if not run.is_finished and plan.config_text == run.config.read_text(encoding="utf-8"):
            return replace(plan, resumes=True)
        if not run.has_trained:
            return plan
    taken = run_dir.directory_of(runs, name)
    state = "is finished" if taken.is_finished else "was begun with other settings"
    raise Conflict(
        f"run {name!r} {state} ({taken.config}): --resume continues it, with its own settings and those given now; "
        "--fresh begins it again and renames the old directory; --run takes another name"
    )


def preview(preset: str, overrides: tuple[str, ...]) -> str:
    """The configuration of a preset with overrides, as a run would save it."""
    run = run_dir.directory_of(Path("runs"), preset_path(preset).stem)
    return _build_plan(run, preset, _resolve(overrides), resumes=False).config_text


def draft_plan(runs: Path, request: RunRequest) -> RunPlan:
    """What the request would launch as a new run, whether or not there is one of this name."""
    run = run_dir.directory_of(runs, request.name or preset_path(request.preset).stem)
    return _pin(_build_plan(run, request.preset, _resolve(request.overrides), resumes=False))


def _pin(plan: RunPlan, *, keeps: bool = False) -> RunPlan:
    """With the commit of a model of the hub, fetched, so that services and a resumed run have the same; with `keeps`
    the commit that a run of this name has already."""
    model = plan.learner.model
    wanted = None if model.is_dir() else HubModel.parse(model)
    if wanted is None:
        return plan
    if keeps and not wanted.is_pinned and plan.run.has_begun:
        before = HubModel.parse(read_preset(plan.run.config, SECTIONS).get("learner", {}).get("model", ""))
        model = Path(str(before)) if before and before.repo == wanted.repo else model
    return replace(plan, learner=plan.learner.model_copy(update={"model": find_model(model).name}))


def prepare(plan: RunPlan, imported: Path | None = None) -> None:
    """Prepares the run directory for its services; a directory that a fresh start replaces is renamed.

    InvalidInput for a model or for problems that cannot be used, before anything is written. What was `imported` for
    the run is moved into it.
    """
    run, demo = plan.run, plan.launcher.demo
    check_trackers(plan.learner.tracker, plan.learner.tracker_modes)
    if not plan.resumes:
        check_model(plan.learner.model)
    if plan.launcher.task == "files":
        check_rows((*(one.path for one in plan.learner.data if is_problem_file(one)), *_held_out_files(plan.learner)))
    if not plan.resumes and run.has_begun:
        if run.has_trained:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(run.config.stat().st_mtime))
            *_, free = run_dir.candidate_names(run.root.parent, f"{run.name}.{stamp}")
            run.root.rename(run.root.with_name(free))
        else:
            shutil.rmtree(run.root)
    run.make()
    run.summary.unlink(missing_ok=True)  # a run that goes on is not finished
    if plan.launcher.task == "demo":
        write_data(run.root / "data", demo.difficulty, demo.train_problems, demo.held_out_problems, demo.seed)
    if imported is not None:
        move_files(imported, run.root / "data")
    atomic_write(run.config, plan.config_text, mode=0o600)


def _resolve(overrides: tuple[str, ...]) -> dict[str, list[str]]:
    """The overrides by section. InvalidInput for one of what the launcher decides for all services."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        section, _, name = key.rpartition(".")
        if name in _OPTIONS and section in ("", *SECTIONS):
            raise InvalidInput(f"{key} is not for a whole run: {_OPTIONS[name]}")
    return resolve_overrides(overrides, SECTIONS)


def _build_plan(run: RunDirectory, source: str | Path, given: dict[str, list[str]], *, resumes: bool) -> RunPlan:
    fixed_by = deterministic_settings(source, given, SECTIONS)
    given = {section: [*fixed_by[section], *settings] for section, settings in given.items()}
    launcher = load_config(LauncherConfig, "launcher", source, given["launcher"])
    launcher = launcher.model_copy(update={"task": _choose_task(launcher, source, given["learner"])})
    preset = read_preset(source, SECTIONS)
    is_method_alone = launcher.task == "demo" and preset.get("launcher", {}).get("task") == "files"
    if is_method_alone:
        preset = take_method(preset)
    fixed = [f"learner.run={run.name}", f"learner.run_dir={run.root.resolve()}"]
    base = None
    if launcher.task == "demo":
        data = run.root.resolve() / "data"
        fixed += [f"learner.data={data / 'train.jsonl'}", f"learner.held_out={data / 'heldout.jsonl'}"]
        fixed += [f"learner.model={checkpoint_directory()}"]
        # a run's own configuration is whole
        base = None if resumes else settings_of_demo(launcher.demo.learning_rate, SECTIONS)
    learner = _resolve_paths(load_config(LearnerConfig, "learner", preset, [*fixed, *given["learner"]], base=base))
    rollout = load_config(RolloutConfig, "rollout", preset, [f"rollout.run={run.name}", *given["rollout"]], base=base)
    plugins = tuple(sorted({*rollout.plugins, *learner.growth_packages}))
    rollout = rollout.model_copy(update={"plugins": plugins})  # what the run's own configuration names is permitted
    verifier = load_config(VerifierConfig, "verifier", preset, given["verifier"])
    return RunPlan(run, learner, rollout, verifier, launcher, resumes, is_method_alone)


def _choose_task(launcher: LauncherConfig, source: str | Path, given: list[str]) -> str:
    """The task that is named, or demo if no data are given. InvalidInput for data beside the demo's."""
    names_data = "learner.data" in {override.partition("=")[0].strip() for override in given}
    if names_data and launcher.task == "demo":
        raise InvalidInput(
            "data are given, and the task is demo, which has its own: take a method for yours, such as --config grpo "
            "or ibtpo-paper, or launcher.task=files with the demo's settings"
        )
    in_preset = read_preset(source, SECTIONS).get("learner", {})
    return launcher.task or ("files" if names_data or "data" in in_preset else "demo")


def _resolve_model(model: Path) -> Path:
    """A name of the hub stays as it is, unless there is such a directory."""
    return model if HubModel.parse(model) and not model.exists() else model.expanduser().resolve()


def _held_out_files(learner: LearnerConfig) -> Iterator[Path]:
    """The held-out sets that are read as they stand."""
    return (one.data.path for one in learner.held_out.values() if is_problem_file(one.data))


def _resolve_paths(learner: LearnerConfig) -> LearnerConfig:
    """With absolute paths, the run can be resumed from any directory."""
    return learner.model_copy(
        update={
            "model": _resolve_model(learner.model),
            "data": tuple(source.resolve() for source in learner.data),
            "held_out": {name: one.resolve() for name, one in learner.held_out.items()},
        }
    )
