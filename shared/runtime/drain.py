"""How a service ends: it takes no new work, finishes what is in flight, then exits."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import IntEnum

from shared.runtime.logs import event_logger
from shared.runtime.loops import cancel

log = event_logger(__name__)


class ExitCode(IntEnum):
    """What a service's process exits with."""

    DONE = 0
    """Everything in flight was finished."""
    STARTUP_FAILED = 3
    GRACE_EXCEEDED = 4
    """The grace ended before the work did; the rest was cut off."""
    INTERRUPTED = 143
    """A signal ended it in good order with work left: start it again (128 + SIGTERM)."""


class Drain:
    """The end of one service: `begin()` at SIGTERM, or when it is done; its loops watch `begun`."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.hurry = asyncio.Event()
        self.exit_code: int = ExitCode.DONE
        self.num_requests = 0
        """Requests in flight, without probes."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._finishers: list[Callable[[], Awaitable[None]]] = []

    def begin(self, exit_code: int = ExitCode.DONE) -> None:
        """Starts the drain; a second call ends the grace."""
        if self.begun.is_set():
            self.hurry.set()
            return
        self.exit_code = exit_code
        self.begun.set()

    def before_exit(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Awaits `finish` within the grace once the drain has begun (release claims, finish trees)."""
        self._finishers.append(finish)

    def request_started(self) -> None:
        self.num_requests += 1
        self._idle.clear()

    def request_ended(self) -> None:
        self.num_requests -= 1
        if self.num_requests == 0:
            self._idle.set()

    async def finish(self, grace_seconds: float) -> int:
        """Waits until all in flight has finished or the grace ends; returns the exit code."""
        finishing, hurry = asyncio.create_task(self._finish()), asyncio.create_task(self.hurry.wait())
        try:
            await asyncio.wait({finishing, hurry}, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
            if finishing.done():
                return self.exit_code
            log.warning("grace_exceeded", grace_seconds=grace_seconds, requests_in_flight=self.num_requests)
            return ExitCode.GRACE_EXCEEDED
        finally:
            await cancel([hurry, finishing])

    async def _finish(self) -> None:
        results = await asyncio.gather(*(finish() for finish in self._finishers), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log.error("drain_step_failed", error=repr(result))
        await self._idle.wait()
