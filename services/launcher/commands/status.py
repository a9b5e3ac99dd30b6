"""`ibtpo status` and `ibtpo stop`: for a run of this machine, or for any run that a Redis knows."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services.launcher.display.durations import format_duration
from services.launcher.display.run_summary import render_summary
from services.launcher.display.view import render_status
from services.launcher.runs import run_dir
from services.launcher.runs.history import History
from services.launcher.runs.run_dir import RunDirectory, RunRecord
from services.launcher.runs.status_source import StatusSource
from shared.errors import InvalidInput, Unavailable
from shared.protocol.status import RunStatus
from shared.streams import connect, list_runs

STOP_SECONDS = 120.0
WATCH_SECONDS = 2.0
POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which run is meant: one under `runs`, or, with `redis_url` and no such directory, one that the Redis knows."""

    runs: Path
    name: str | None
    redis_url: str | None
    token: str | None

    @property
    def remote_redis_url(self) -> str | None:
        """The Redis to ask; None when the run has a directory here."""
        paths = () if self.name is None else (self.runs / self.name, Path(self.name))
        return None if any(RunDirectory(path).has_begun for path in paths) else self.redis_url


def status(query: RunQuery, *, watch: bool) -> int:
    """Prints how the run is going; with `watch`, again and again until it has ended."""
    console = Console()
    if query.remote_redis_url:
        return asyncio.run(_show_remote_status(console, query, query.remote_redis_url))
    run = run_dir.find_run(query.runs, query.name)
    while True:
        is_running = run.is_running()
        found = asyncio.run(_read_status(run, query.token)) if is_running else None
        if found is not None:
            console.print(render_status(found, History.read(run.metrics), time.time()))
        elif is_running:
            print(f"run {run.name} ({run.root}/) is starting")
        else:
            console.print(render_summary(run))
        if not (watch and is_running):
            return 0
        time.sleep(WATCH_SECONDS)


def stop(query: RunQuery) -> int:
    """Asks the run to save its state and end, and waits until it has."""
    if query.remote_redis_url:
        return asyncio.run(_stop_remote(query, query.remote_redis_url))
    run = run_dir.find_run(query.runs, query.name)
    record = run.read_record()
    if record is None or not run.is_running():
        print(f"run {run.name} is not running")
        return 0
    is_accepted = asyncio.run(_request_stop(record, query.token))
    if not is_accepted:
        os.kill(record.pid, signal.SIGTERM)
    how = "the learner finishes its step and saves" if is_accepted else "its launcher stops the services"
    print(f"run {run.name}: {how}", flush=True)
    started = time.monotonic()
    while run.is_running():
        if time.monotonic() - started > STOP_SECONDS:
            raise Unavailable(
                f"run {run.name!r} has not ended after {STOP_SECONDS:.0f} s: `kill {record.pid}` ends its launcher and "
                f"all its services; the logs are in {run.root}/logs/"
            )
        time.sleep(POLL_SECONDS)
    took = format_duration(time.monotonic() - started)
    print(f"run {run.name} stopped, {format_duration(time.time() - record.started)} after its start ({took} to stop)")
    Console().print(render_summary(run))
    return 0


async def _read_status(run: RunDirectory, token: str | None) -> RunStatus | None:
    record = run.read_record()
    if record is None:
        return None
    async with StatusSource(record.run, record.redis_url, token) as source:
        return await source.read(record.learner_url)


async def _request_stop(record: RunRecord, token: str | None) -> bool:
    async with StatusSource(record.run, record.redis_url, token) as source:
        return await source.request_stop(record.learner_url)


async def _show_remote_status(console: Console, query: RunQuery, redis_url: str) -> int:
    name = await _find_remote(query.name, redis_url)
    async with StatusSource(name, redis_url, query.token) as source:
        found = await source.read(None)
    if found is None:
        raise Unavailable(f"the status of run {name!r} cannot be read: is the run of another release of ibtpo?")
    console.print(render_status(found, History()))
    console.print(f"as of {format_duration(max(0.0, time.time() - found.time))} ago", highlight=False)
    return 0


async def _stop_remote(query: RunQuery, redis_url: str) -> int:
    name = await _find_remote(query.name, redis_url)
    async with StatusSource(name, redis_url, query.token) as source:
        if not await source.request_stop(None):
            raise Unavailable(f"Redis did not take the request to stop run {name!r}; is it up?")
    print(f"run {name}: asked to stop; its learner finishes its step and saves")
    return 0


async def _find_remote(name: str | None, redis_url: str) -> str:
    """The name, or that of the latest run; InvalidInput for a run that this Redis does not know."""
    connection = connect(redis_url)
    try:
        known = await list_runs(connection)
    finally:
        await connection.close()
    if not known and name is None:
        raise InvalidInput("this Redis knows no run")
    if name not in (None, *known):
        raise InvalidInput(f"this Redis knows no run {name!r}; it knows {', '.join(known) or 'none'}")
    return name or known[0]
