"""`ibtpo train` and `ibtpo demo`: plans a run, launches it, reports how it ended."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from services.launcher.check.start import look_before_start
from services.launcher.display.import_view import ImportView
from services.launcher.display.run_summary import render_summary
from services.launcher.display.view import RunView, choose_view
from services.launcher.display.waits import ENDED
from services.launcher.processes.launch import RunLauncher
from services.launcher.processes.problem_import import import_and_prepare
from services.launcher.processes.redis_server import RedisServer, choose_redis
from services.launcher.report.page import write_report
from services.launcher.runs.history import History
from services.launcher.settings.plan import RunPlan, RunRequest, make_run_plan
from shared.errors import Conflict
from shared.streams import RunStreams, connect

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells expect it."""
RECENT_SECONDS = 30.0
"""A run whose status is this recent counts as going on, unless the status says that it ended."""


Call = Callable[[Coroutine[Any, Any, bool], Callable[[], None]], bool]
"""Waits for the first, a launch; the second, called in its loop, interrupts it."""


def train(request: RunRequest, runs: Path, redis_url: str | None, *, plain: bool) -> int:
    """Trains until the run ends or is stopped; returns the exit code."""
    console = Console()
    plan = make_run_plan(runs, request)
    if plan.is_done:
        console.print(render_summary(plan.run))
        print("it is finished: a larger max_generated_tokens or total_steps trains on")
        return 0
    warnings = look_before_start(plan)
    import_and_prepare(plan, ImportView(Console(stderr=True)))
    view = choose_view(console, History.read(plan.run.metrics), plain=plain)
    for warning in warnings:
        view.say(warning)
    if plan.launcher.task == "files" and not plan.resumes:
        view.say("`ibtpo check` with the same settings says how often the untrained model is right, and what lacks")
    is_interrupted = execute(plan, redis_url, view)
    console.print(render_summary(plan.run))
    return INTERRUPTED if is_interrupted and not plan.run.is_finished else 0


def execute(
    plan: RunPlan, redis_url: str | None, view: RunView, call: Call = lambda launch, interrupt: asyncio.run(launch)
) -> bool:
    """Trains by a plan that is prepared, closes the view and writes the report; whether an interrupt ended it."""
    try:
        view.say(f"{'resuming' if plan.resumes else 'beginning'} run {plan.run.name} in {plan.run.root}/")
        if plan.launcher.task == "demo":
            stated = "other than the preset's method" if plan.is_method_alone else "that are not given,"
            view.say(f"task demo: the problems, and the settings {stated} are the demo's")
        elif not plan.learner.held_out:
            view.say("no held-out problems are given (held_out=FILE): nothing is evaluated")
        redis = choose_redis(redis_url, plan.run.root / "redis")
        launcher = RunLauncher(plan, redis, view)
        is_interrupted = call(_launch(plan, redis, launcher), launcher.interrupt)
    finally:
        view.close()
    if plan.run.has_trained:
        write_report(plan.run)
    return is_interrupted


async def _launch(plan: RunPlan, redis: RedisServer, launcher: RunLauncher) -> bool:
    if not redis.command and not plan.resumes:
        await clear_ended_run(redis.url, plan.run.name)
    return await launcher.run()


async def clear_ended_run(redis_url: str, run: str) -> None:
    """Deletes what an ended run of that name left in this Redis; Conflict when that run is still going on."""
    connection = connect(redis_url)
    streams = RunStreams(connection, run)
    try:
        status = await streams.status_keys.read()
        if status is not None and status.state not in ENDED and time.time() - status.time < RECENT_SECONDS:
            raise Conflict(
                f"run {run!r} is going on in this Redis (its status is {time.time() - status.time:.0f} s old): choose "
                f"another name with --run, or end it with `ibtpo stop {run} --redis-url …`"
            )
        await streams.forget()
    finally:
        await connection.close()
