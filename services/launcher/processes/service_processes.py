"""Runs services as real processes: starts them, waits until they are ready, restarts the dead, ends them in order."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from pathlib import Path
from typing import IO

import httpx

from services.launcher.processes import process_group
from services.launcher.processes.guard_line import GuardLine
from services.launcher.processes.log_tail import tail
from shared.errors import Unavailable

POLL_SECONDS = 0.1
STABLE_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 8.0
BAD_CONFIGURATION = 2
"""A service's exit code when its configuration cannot work: restarting would not help."""


Probe = Callable[[str], Awaitable[bool]]


class EndRank(IntEnum):
    """Which services end first: the learner while all that it needs is still there."""

    LEARNER = 0
    ROLLOUT = 1
    VERIFIER = 2
    REDIS = 3


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How one service is run. "{port}" in `command` stands for the port: 0 at first, at a restart the one it had.

    `probe` is asked until it answers True; `may_finish`: its exit with code 0 is the end of the run, not a fault.
    """

    name: str
    command: tuple[str, ...]
    rank: EndRank
    log: Path
    url_file: Path | None
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    may_finish: bool = False
    grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the launcher waits for a service to become ready, and how often it restarts one that died."""

    ready_seconds: float = 120.0
    max_restarts: int = 5


class ServiceFailed(Unavailable):
    """A service did not become ready, or died too often; the message shows the end of its log."""


class Service:
    """One service over all its restarts."""

    def __init__(self, spec: ServiceSpec, guard: GuardLine, tell: Callable[[str], None]) -> None:
        self.spec = spec
        self._tell = tell
        self.restarts = 0
        self.url = ""
        self._guard = guard
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        """The process now running, which leads its process group."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        """Starts the process, in a group of its own, its output appended to its log."""
        if self.spec.url_file is not None:
            self.spec.url_file.unlink(missing_ok=True)
        with self.spec.log.open("ab") as output:
            self._process = await _spawn(self._command(), {**os.environ, **self.spec.environment}, output)
        self._guard.add(self.spec.name, self._process.pid, self.spec.rank, self.spec.grace_seconds)
        self._started = time.monotonic()

    async def wait_ready(self, seconds: float) -> None:
        """Returns once it answers its probe; ServiceFailed when it exits before that, or is not ready in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.exit_code is not None:
                raise self._failure(f"ended with {_ending(self.exit_code)} before it was ready")
            self.url = self._bound_url()
            if (self.url or self.spec.url_file is None) and await self.spec.probe(self.url):
                return
            await asyncio.sleep(POLL_SECONDS)
        raise self._failure(f"is not ready after {seconds:.0f} s (raise local.ready_seconds on a slow machine)")

    async def keep_running(self, patience: Patience) -> None:
        """Returns when the service has finished its work; restarts it when it died. ServiceFailed at the last death."""
        while True:
            code = await self._wait()
            if code == 0 and self.spec.may_finish:
                return
            if time.monotonic() - self._started > STABLE_SECONDS:
                self.restarts = 0
            if code == BAD_CONFIGURATION or self.restarts >= patience.max_restarts:
                raise self._failure(f"ended with {_ending(code)} after {self.restarts} restarts")
            self.restarts += 1
            self._tell(f"{self.spec.name} ended with {_ending(code)}: restarting it")
            await asyncio.sleep(min(0.25 * 2**self.restarts, MAX_BACKOFF_SECONDS))
            await self.start()
            try:
                await self.wait_ready(patience.ready_seconds)
            except ServiceFailed:
                if self.exit_code is None:
                    raise

    async def end(self, grace_seconds: float) -> None:
        """Ends the process and all that it started, by SIGKILL after the grace."""
        if self._process is None:
            return
        group = self._process.pid
        if self._process.returncode is None:
            process_group.ask_to_end(group)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._process.wait()
        process_group.kill(group)
        await self._wait()

    async def _wait(self) -> int:
        """Waits for the process; what it leaves behind in its group ends with it."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        code = await self._process.wait()
        process_group.kill(self._process.pid)
        self._guard.remove(self._process.pid)
        return code

    def _command(self) -> tuple[str, ...]:
        port = str(httpx.URL(self.url).port or 0) if self.url else "0"
        return tuple(part.replace("{port}", port) for part in self.spec.command)

    def _bound_url(self) -> str:
        if self.spec.url_file is None:
            return ""
        try:
            return self.spec.url_file.read_text().strip() or self.url
        except FileNotFoundError:
            return self.url

    def _failure(self, what: str) -> ServiceFailed:
        log = self.spec.log
        return ServiceFailed(f"{self.spec.name} {what}. The end of {log}:\n{tail(log)}")


async def end_in_order(services: Sequence[Service], *, at_once: bool = False) -> None:
    """Ends the services rank by rank: the learner saves its state while all that it needs is still there."""
    for _, together in groupby(sorted(services, key=lambda one: one.spec.rank), key=lambda one: one.spec.rank):
        await asyncio.gather(*(one.end(0.0 if at_once else one.spec.grace_seconds) for one in together))


async def _spawn(
    command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment),
        start_new_session=True,
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"signal {-code}"
