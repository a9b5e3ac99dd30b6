"""`ibtpo train` and `ibtpo demo`: plans a run, launches it, reports how it ended."""

import asyncio
import time
from pathlib import Path

from rich.console import Console

from services.launcher.display.report import write_report
from services.launcher.display.run_summary import render_summary
from services.launcher.display.view import ENDED, RunView, choose_view
from services.launcher.processes.launch import RunLauncher
from services.launcher.processes.redis_server import choose_redis
from services.launcher.runs.history import History
from services.launcher.settings.plan import RunPlan, RunRequest, make_run_plan, prepare
from shared.errors import Conflict
from shared.streams import RunStreams, connect

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells expect it."""
RECENT_SECONDS = 30.0
"""A run whose status is this recent counts as going on, unless the status says that it ended."""


def train(request: RunRequest, runs: Path, redis_url: str | None, *, plain: bool) -> int:
    """Trains until the run ends or is stopped; returns the exit code."""
    console = Console()
    plan = make_run_plan(runs, request)
    if plan.resumes and plan.run.is_finished and plan.run.config.read_text(encoding="utf-8") == plan.config_text:
        console.print(render_summary(plan.run))
        print("it is finished: a larger max_generated_tokens or total_steps trains on")
        return 0
    prepare(plan)
    view = choose_view(console, History.read(plan.run.metrics), plain=plain)
    try:
        view.say(f"{'resuming' if plan.resumes else 'beginning'} run {plan.run.name} in {plan.run.root}/")
        if plan.launcher.task == "demo":
            view.say("task demo: the problems, and the settings that are not given, are the demo's")
        elif not plan.learner.held_out:
            view.say("no held-out problems are given (held_out=FILE): nothing is evaluated")
        is_interrupted = asyncio.run(_launch(plan, redis_url, view))
    finally:
        view.close()
    if plan.run.has_trained:
        write_report(plan.run)
    console.print(render_summary(plan.run))
    return INTERRUPTED if is_interrupted and not plan.run.is_finished else 0


async def _launch(plan: RunPlan, redis_url: str | None, view: RunView) -> bool:
    redis = choose_redis(redis_url, plan.run.root / "redis")
    if not redis.command and not plan.resumes:
        await clear_ended_run(redis.url, plan.run.name)
    return await RunLauncher(plan, redis, view).run()


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
