"""`ibtpo status` and `ibtpo stop`: of a run of this machine, or of any run that a Redis knows."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.launcher.display.outcome import outcome
from services.launcher.display.view import duration, picture
from services.launcher.runs import run_dir
from services.launcher.runs.history import History
from services.launcher.runs.run_dir import RunDirectory, RunRecord
from services.launcher.runs.status_source import StatusSource
from shared.errors import InvalidInput, Unavailable
from shared.protocol.status import RunStatus
from shared.streams import connect, list_runs

STOP_SECONDS = 120.0
POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class WhichRun:
    """How a run was named: with `redis_url` it is looked for there, else among the run directories."""

    runs: Path
    name: str | None
    redis_url: str | None
    token: str | None


def status(which: WhichRun, *, watch: bool) -> int:
    """Prints how the run is going; with `watch`, until it has ended."""
    console = Console()
    if which.redis_url and not _is_local(which):
        return asyncio.run(_status_of_redis(console, which, which.redis_url))
    run = run_dir.find(which.runs, which.name)
    while True:
        is_running = run.is_running()
        found = asyncio.run(_read(run, which.token)) if is_running else None
        if found is not None:
            console.print(picture(found, History.read(run.metrics)))
        elif run.is_finished:
            console.print(outcome(run))
        else:
            state = "starting" if is_running else "not running, and not finished"
            console.print(f"run {run.name} ({run.root}/) is {state}", highlight=False)
        if not (watch and is_running):
            return 0
        time.sleep(2.0)


def stop(which: WhichRun) -> int:
    """Asks the run to save its state and end, and waits until it has."""
    if which.redis_url and not _is_local(which):
        return asyncio.run(_stop_by_redis(which, which.redis_url))
    run = run_dir.find(which.runs, which.name)
    record = run.read_record()
    if record is None or not run.is_running():
        print(f"run {run.name} is not running")
        return 0
    heard = asyncio.run(_ask(record, which.token))
    if not heard:
        os.kill(record.pid, signal.SIGTERM)
    print(
        f"run {run.name}: {'the learner finishes its step and saves' if heard else 'its launcher ends it'}", flush=True
    )
    began = time.monotonic()
    while run.is_running():
        if time.monotonic() - began > STOP_SECONDS:
            raise Unavailable(
                f"run {run.name!r} has not ended after {STOP_SECONDS:.0f} s: `kill {record.pid}` ends its launcher, "
                f"which ends all the rest; the logs are in {run.root}/logs/"
            )
        time.sleep(POLL_SECONDS)
    print(
        f"stopped after {duration(time.monotonic() - began)}; `ibtpo train --run {run.name} --resume` goes on with it"
    )
    return 0


def _is_local(which: WhichRun) -> bool:
    return which.name is not None and RunDirectory(which.runs / which.name).has_begun


async def _read(run: RunDirectory, token: str | None) -> RunStatus | None:
    record = run.read_record()
    if record is None:
        return None
    async with StatusSource(record.run, record.redis_url, token) as source:
        return await source.read(record.learner_url)


async def _ask(record: RunRecord, token: str | None) -> bool:
    async with StatusSource(record.run, record.redis_url, token) as source:
        return await source.ask_to_stop(record.learner_url)


async def _status_of_redis(console: Console, which: WhichRun, redis_url: str) -> int:
    name = which.name or await _latest(redis_url)
    async with StatusSource(name, redis_url, which.token) as source:
        found = await source.read(None)
    if found is None:
        raise InvalidInput(f"this Redis knows no run {name!r}; it knows {', '.join(await _known(redis_url)) or 'none'}")
    console.print(picture(found, History()))
    console.print(f"told {duration(max(0.0, time.time() - found.time))} ago", highlight=False)
    return 0


async def _stop_by_redis(which: WhichRun, redis_url: str) -> int:
    name = which.name or await _latest(redis_url)
    async with StatusSource(name, redis_url, which.token) as source:
        if not await source.ask_to_stop(None):
            raise Unavailable(f"Redis could not be told to stop run {name!r}; is it up?")
    print(f"run {name}: asked to stop; its learner finishes its step and saves")
    return 0


async def _latest(redis_url: str) -> str:
    known = await _known(redis_url)
    if not known:
        raise InvalidInput("this Redis knows no run")
    return known[0]


async def _known(redis_url: str) -> list[str]:
    connection = connect(redis_url)
    try:
        return await list_runs(connection)
    finally:
        await connection.close()
