"""Background loops that survive failures: each is logged and followed by a growing pause."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from shared.runtime.logs import event_logger

log = event_logger(__name__)

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause after the n-th failure in a row: it doubles from `first_seconds` up to `most_seconds`."""

    first_seconds: float = 0.1
    most_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.most_seconds:
            raise ValueError(f"0 < first_seconds <= most_seconds: {self.first_seconds}, {self.most_seconds}")

    def pause_seconds(self, num_failures: int) -> float:
        return float(min(self.first_seconds * 2 ** min(num_failures - 1, 30), self.most_seconds))


class Periodic:
    """Repeats `step`, `every_seconds` apart (0: at once), until cancelled or `stop` is set."""

    def __init__(
        self,
        name: str,
        step: Step,
        *,
        every_seconds: float = 0.0,
        backoff: Backoff = Backoff(),
        stop: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self.num_failures_in_row = 0
        self._step = step
        self._every_seconds = every_seconds
        self._backoff = backoff
        self._stop = stop or asyncio.Event()

    async def run(self) -> None:
        """The loop itself; give it to a TaskGroup."""
        while not self._stop.is_set():
            await self._pause(await self._once())

    def start(self) -> asyncio.Task[None]:
        """Runs the loop in a task of its own."""
        return asyncio.create_task(self.run(), name=self.name)

    async def _once(self) -> float:
        """Does the step; returns the seconds to pause after it."""
        try:
            await self._step()
        except Exception as error:  # noqa: BLE001 - the next step may succeed
            self.num_failures_in_row += 1
            self._log_failure(error)
            return max(self._backoff.pause_seconds(self.num_failures_in_row), self._every_seconds)
        if self.num_failures_in_row:
            log.info("loop_recovered", loop=self.name, failures=self.num_failures_in_row)
        self.num_failures_in_row = 0
        return self._every_seconds

    def _log_failure(self, error: Exception) -> None:
        # the traceback once, then short lines: a long outage must not flood the log
        if self.num_failures_in_row == 1:
            log.exception("loop_failed", loop=self.name, error=repr(error), failures=1)
        else:
            log.warning("loop_failed", loop=self.name, error=repr(error), failures=self.num_failures_in_row)

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # a step that never waits must still let the others run
            return
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Ends the tasks; whatever they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
