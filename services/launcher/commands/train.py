"""`ibtpo train` from its arguments to its exit code."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.launcher.display.outcome import outcome
from services.launcher.display.report import write_report
from services.launcher.display.view import RunView, view_for
from services.launcher.processes import redis_server
from services.launcher.processes.launch import Ending, Launch
from services.launcher.processes.redis_server import GivenRedis
from services.launcher.runs.history import History
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.settings.plan import Plan, Start, Wish, make_plan, prepare
from shared.errors import Conflict
from shared.protocol.status import RunState
from shared.streams import RunStreams, connect

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells expect it."""
ALIVE_SECONDS = 30.0
"""A run that told its status so lately is going on, unless it said that it ended."""
_ENDED = (RunState.FINISHED, RunState.STOPPED, RunState.FAILED)


@dataclass(frozen=True, slots=True)
class Training:
    """The command's arguments."""

    preset: str
    overrides: tuple[str, ...]
    name: str | None
    start: str
    runs: Path
    redis_url: str | None
    plain: bool


def train(training: Training) -> int:
    """Trains to the end of the run, or until told to stop; returns the exit code."""
    console = Console()
    plan = make_plan(training.runs, Wish(training.name, training.preset, training.overrides, Start(training.start)))
    prepare(plan)
    view = view_for(console, History.read(plan.run.metrics), plain=training.plain)
    try:
        view.say(_opening(plan))
        ending = asyncio.run(_launch(plan, training.redis_url, view))
    finally:
        view.close()
    return _close(console, plan.run, ending)


async def _launch(plan: Plan, redis_url: str | None, view: RunView) -> Ending:
    redis = redis_server.choose(redis_url, plan.run.root / "redis")
    if isinstance(redis, GivenRedis) and not plan.resumes:
        await forget_ended(redis.url, plan.run.name)
    return await Launch(plan, redis, view).run()


async def forget_ended(redis_url: str, run: str) -> None:
    """Clears what an earlier run of that name left in a Redis that outlives it; Conflict when that one goes on."""
    connection = connect(redis_url)
    streams = RunStreams(connection, run)
    try:
        status = await streams.board.read()
        if status is not None and status.state not in _ENDED and time.time() - status.time < ALIVE_SECONDS:
            raise Conflict(
                f"run {run!r} goes on in this Redis (heard {time.time() - status.time:.0f} s ago): choose another name "
                f"with --run, or end it with `ibtpo stop {run} --redis-url …`"
            )
        await streams.forget()
    finally:
        await connection.close()


def _opening(plan: Plan) -> str:
    return f"{'resuming' if plan.resumes else 'beginning'} run {plan.run.name} in {plan.run.root}/"


def _close(console: Console, run: RunDirectory, ending: Ending) -> int:
    """Says what is left, and how to go on."""
    if run.is_finished:
        write_report(run)
        console.print(outcome(run))
        return 0
    state = "stopped" if ending is Ending.INTERRUPTED else "ended before its last step"
    console.print(
        f"run {run.name} {state}; nothing is left running. `ibtpo train --run {run.name} --resume` goes on with it, "
        f"`ibtpo show {run.name}` shows its trees",
        highlight=False,
        soft_wrap=True,
    )
    return INTERRUPTED if ending is Ending.INTERRUPTED else 0
