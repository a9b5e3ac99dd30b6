"""Trains from Python, by the same path as `ibtpo train`."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from ibtpo.calls import LoopThread, can_take_signals
from ibtpo.notebook import NotebookView, is_notebook
from ibtpo.run import Run, of_directory
from ibtpo.settings import to_settings
from services.launcher.check.start import look_before_start
from services.launcher.commands.train import execute
from services.launcher.display.import_view import ImportView
from services.launcher.display.view import QuietView, RunView, choose_view
from services.launcher.processes.problem_import import import_and_prepare
from services.launcher.runs.history import History
from services.launcher.settings.plan import SECTIONS, RunPlan, RunRequest, StartMode, make_run_plan
from shared.errors import Conflict, InvalidInput
from shared.runtime.config import ABOUT

Config = str | PathLike[str] | Mapping[str, Any]
_WORDS = {"--resume": "resume=True", "--fresh": "fresh=True", "--runs": "runs=", "--run": "run="}


def train(
    config: Config = "demo",
    run: str | None = None,
    *,
    model: str | PathLike[str] | None = None,
    resume: bool = False,
    fresh: bool = False,
    runs: str | PathLike[str] = "runs",
    redis_url: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Trains a model with every service on this machine; returns the run when it has ended.

    `config` is a preset's name, a TOML file, or a dictionary: such a file's tables, or settings. The settings are those
    of `ibtpo train`: `lr=1e-4`, `data="problems.jsonl"`, `**{"launcher.replicas": 1}`. An interrupt saves the state,
    stops every service and is raised as KeyboardInterrupt; the same call goes on from there, and so does `resume=True`.

    >>> ibtpo.train("demo", "first", total_steps=20)
    """
    if isinstance(config, Mapping):
        sections = (*SECTIONS, ABOUT)
        settings = {key: value for key, value in config.items() if key not in sections} | settings
        config = {key: value for key, value in config.items() if key in sections}
    given = to_settings({"learner.model": model} | settings, SECTIONS, train)
    redis_url = redis_url or os.environ.get("REDIS_URL")
    with _in_words_of_python(), _as_preset(config) as preset:
        plan = make_run_plan(Path(runs), RunRequest(run, preset, given, StartMode.of(resume=resume, fresh=fresh)))
        if plan.is_done:
            return of_directory(plan.run)
        warnings = look_before_start(plan)
        import_and_prepare(plan, ImportView(Console(stderr=True, quiet=not progress)))
    view = _choose_view(plan, progress)
    for warning in warnings:
        view.say(warning)
    is_interrupted = execute(plan, redis_url, view, _run_here if can_take_signals() else _run_in_thread)
    if is_interrupted and not plan.run.is_finished:
        raise KeyboardInterrupt(
            f"run {plan.run.name!r} is stopped and saved: ibtpo.train(run={plan.run.name!r}, resume=True) continues it"
        )
    return of_directory(plan.run)


def _run_here(launch: Coroutine[Any, Any, bool], interrupt: Callable[[], None]) -> bool:
    return asyncio.run(launch)


def _run_in_thread(launch: Coroutine[Any, Any, bool], interrupt: Callable[[], None]) -> bool:
    loop = LoopThread()
    try:
        return loop.call(launch, interrupt)
    finally:
        loop.close()


def _choose_view(plan: RunPlan, progress: bool) -> RunView:
    if not progress:
        return QuietView()
    history = History.read(plan.run.metrics)
    return NotebookView(history) if is_notebook() else choose_view(Console(), history, plain=False)


@contextmanager
def _as_preset(config: Config) -> Iterator[str]:
    """The name of a preset, or the path of a file; of tables, one that is deleted when the block ends."""
    if isinstance(config, str | PathLike):
        yield fspath(config)
        return
    if not isinstance(config, Mapping):
        raise InvalidInput(f"config is a preset's name, a TOML file or a dictionary, not {config!r}")
    with tempfile.TemporaryDirectory(prefix="ibtpo-config-") as folder:
        path = Path(folder) / "run.toml"
        try:
            path.write_text(tomli_w.dumps(config), encoding="utf-8")
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"config cannot be written as TOML: {error}") from error
        yield str(path)


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Errors that name options of the command name arguments instead."""
    try:
        yield
    except (InvalidInput, Conflict) as error:
        text = str(error)
        for option, argument in _WORDS.items():
            text = text.replace(option, argument)
        raise type(error)(text) from error
