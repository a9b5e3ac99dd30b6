"""Waits for a condition, with a deadline and a message, in place of a sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shared.errors import Unavailable

Result = TypeVar("Result")


def wait_until(
    condition: Callable[[], Result],
    seconds: float = 20.0,
    what: str | Callable[[], str] = "",
    every_seconds: float = 0.0,
) -> Result:
    """Blocks until `condition()` is true and returns its value; AssertionError, saying `what`, after `seconds`.

    A condition that is dear to ask is asked no more often than `every_seconds`.
    """
    start = time.monotonic()
    while not (value := condition()):
        if (waited := time.monotonic() - start) > seconds:
            raise AssertionError(_message(condition, seconds, what))
        time.sleep(max(every_seconds, _pause(waited)))
    return value


async def wait_until_async(
    condition: Callable[[], Any], seconds: float = 20.0, what: str | Callable[[], str] = ""
) -> Any:
    """As `wait_until`, while the event loop runs on; `condition` may also be a coroutine function."""
    start = time.monotonic()
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if (waited := time.monotonic() - start) > seconds:
            raise AssertionError(_message(condition, seconds, what))
        await asyncio.sleep(_pause(waited))


async def retry_while_unavailable(work: Callable[[], Awaitable[Result]], seconds: float) -> Result:
    """Does `work` until it does not raise Unavailable, for at most `seconds`. It must be safe to do twice."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await work()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.05)


def _pause(waited: float) -> float:
    """Seconds to the next look: a fiftieth of the wait so far. A look costs the processor time that is waited for."""
    return min(0.25, max(0.005, waited / 50))


def _message(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str]) -> str:
    text = what if isinstance(what, str) else what()
    return f"not so after {seconds:g} s: {text or inspect.getsource(condition).strip()}"
