"""Runs services as processes: starts them, waits until they are ready, restarts those that die, stops them in order.

This is ours: supervisors such as systemd need an installation, and none keeps both a free port over a restart and an
order of stopping.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import httpx

from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.log_tail import last_event, read_refusal, tail
from shared.errors import InvalidInput, Unavailable
from shared.runtime import child_process
from shared.runtime.child_process import describe_exit
from shared.runtime.client import http_client
from shared.runtime.drain import ExitCode

POLL_SECONDS = 0.1
PROBE_SECONDS = 2.0
STABLE_SECONDS = 60.0
"""A service that has run this long has its restarts forgotten."""
MAX_BACKOFF_SECONDS = 8.0
BAD_CONFIGURATION = 2
"""A service's exit code for a configuration that cannot work: a restart would not help."""
PYTHON_ENVIRONMENT = {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONIOENCODING": ""}
"""For every Python that we start: packages of the working directory cannot take the place of ours, and files are UTF-8
whatever the locale."""


Probe = Callable[[str], Awaitable[bool]]


class StopOrder(IntEnum):
    """Which services stop first: the learner, while everything it needs still runs."""

    LEARNER = 0
    ROLLOUT = 1
    VERIFIER = 2
    REDIS = 3


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How to run one service. "{port}" in `command` becomes the port: 0 at first; on a restart, the port it had.

    The service is ready once `probe` answers True for its URL. With `may_finish`, exit code 0 ends the run in order.
    """

    name: str
    command: tuple[str, ...]
    stop_order: StopOrder
    log: Path
    url_file: Path | None
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    may_finish: bool = False
    grace_seconds: float = 10.0


def make_spec(
    name: str,
    log: Path,
    url_file: Path,
    probe: Probe,
    settings: Sequence[str],
    environment: Mapping[str, str],
    *,
    config: str | Path | None = None,
    grace_seconds: float = 10.0,
) -> ServiceSpec:
    """How to run one of our own services, `verifier` or `rollout-2`, with `config`, a preset or a file, and settings
    of its section."""
    command = name.partition("-")[0]
    order = StopOrder[command.upper()]
    options = ("--config", str(config)) if config else ()
    every = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *settings)
    arguments = (command, *options, *(f"{command}.{setting}" for setting in every))
    return ServiceSpec(
        name=name,
        command=(sys.executable, "-m", "ibtpo", *arguments),
        stop_order=order,
        log=log,
        url_file=url_file,
        probe=probe,
        environment=environment,
        may_finish=order is StopOrder.LEARNER,
        grace_seconds=grace_seconds,
    )


async def is_ready(url: str) -> bool:
    """Whether the service can serve now."""
    return await _succeeds(f"{url}/readyz")


async def is_listening(url: str) -> bool:
    """Whether the service listens, ready or not."""
    return await _succeeds(f"{url}/healthz")


async def _succeeds(url: str) -> bool:
    try:
        async with http_client(None, PROBE_SECONDS) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False


class Service:
    """One service, over all its restarts."""

    def __init__(self, spec: ServiceSpec, guard: GuardProcess, report: Callable[[str], None]) -> None:
        self.spec = spec
        self._report = report
        self.restarts = 0
        self.url = ""
        self._guard = guard
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._log_begins = 0
        self.is_ready = False
        """Whether its last start has succeeded."""

    @property
    def doing(self) -> str:
        """What it says that it does, and for how long it has run: `learner 12 s: loading_weights 3 of 8`."""
        event = last_event(self.spec.log, self._log_begins) or "its code is being loaded"
        return f"{self.spec.name} {time.monotonic() - self._started:.0f} s: {event}"

    @property
    def pid(self) -> int | None:
        """The latest process; it leads its process group."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        return self._process.returncode if self._process is not None else None

    @property
    def has_finished(self) -> bool:
        """Whether it has ended because nothing was left to do."""
        return self.exit_code == 0 and self.spec.may_finish

    async def start(self) -> None:
        """Starts the process in a new process group; its output is appended to its log."""
        if self.spec.url_file is not None:
            self.spec.url_file.unlink(missing_ok=True)
        with self.spec.log.open("ab") as output:
            self._log_begins = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **PYTHON_ENVIRONMENT, **self.spec.environment},
                start_new_session=True,
            )
        self._guard.add(self.spec.name, self._process.pid, self.spec.stop_order, self.spec.grace_seconds)
        self._started = time.monotonic()
        self.is_ready = False

    async def wait_ready(self, seconds: float) -> None:
        """Returns once the probe succeeds, or the service has finished. Unavailable, with the end of its log, when it
        exits otherwise or is not ready in time; InvalidInput when it says that its configuration is why."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.has_finished:
                return
            if self.exit_code is not None:
                raise self._failure(f"ended with {describe_exit(self.exit_code)} before it was ready")
            self.url = self._read_url()
            if (self.url or self.spec.url_file is None) and await self.spec.probe(self.url):
                self.is_ready = True
                return
            await asyncio.sleep(POLL_SECONDS)
        raise self._failure(f"is not ready after {seconds:.0f} s (raise launcher.ready_seconds on a slow machine)")

    async def keep_running(self, ready_seconds: float, max_restarts: int) -> None:
        """Restarts the service when it dies; returns when it has finished. Errors as of `wait_ready` when it has died
        more often than `max_restarts`, or a restart would not help."""
        while True:
            code = await self._wait()
            if self.has_finished:
                return
            if time.monotonic() - self._started > STABLE_SECONDS:
                self.restarts = 0
            is_refused = self.spec.may_finish and code == ExitCode.STARTUP_FAILED  # a model or data that cannot be used
            if is_refused or code == BAD_CONFIGURATION or self.restarts >= max_restarts:
                raise self._failure(f"ended with {describe_exit(code)} after {self.restarts} restarts")
            self.restarts += 1
            self._report(f"{self.spec.name} ended with {describe_exit(code)}: restarting it")
            await asyncio.sleep(min(0.25 * 2**self.restarts, MAX_BACKOFF_SECONDS))
            await self.start()
            try:
                await self.wait_ready(ready_seconds)
            except (InvalidInput, Unavailable):
                if self.exit_code is None:
                    raise

    async def stop(self, grace_seconds: float) -> None:
        """Stops the process and everything that it started, by SIGKILL after the grace."""
        if self._process is None:
            return
        await child_process.stop(self._process, grace_seconds)
        await self._wait()

    async def _wait(self) -> int:
        """Waits for the process, then kills what it leaves in its group."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        code = await self._process.wait()
        child_process.kill_group(self._process.pid)
        self._guard.remove(self._process.pid)
        return code

    def _command(self) -> tuple[str, ...]:
        port = str(httpx.URL(self.url).port or 0) if self.url else "0"
        return tuple(part.replace("{port}", port) for part in self.spec.command)

    def _read_url(self) -> str:
        """The URL that the service wrote; until it has written one, the URL of its last start."""
        if self.spec.url_file is None:
            return ""
        try:
            return self.spec.url_file.read_text(encoding="utf-8").strip() or self.url
        except FileNotFoundError:
            return self.url

    def _failure(self, what: str) -> InvalidInput | Unavailable:
        log = self.spec.log
        if self.exit_code == ExitCode.STARTUP_FAILED and (reason := read_refusal(log)):
            return InvalidInput(f"{self.spec.name} {what}: {reason}")
        return Unavailable(f"{self.spec.name} {what}. The end of {log}:\n{tail(log)}")


async def stop_in_order(services: Sequence[Service]) -> None:
    """Stops the services by their stop order, those of one order at once."""
    for order in StopOrder:
        together = (service for service in services if service.spec.stop_order is order)
        await asyncio.gather(*(service.stop(service.spec.grace_seconds) for service in together))
