"""Waiting for a server that comes back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import Unavailable

Result = TypeVar("Result")


async def ride_out(work: Callable[[], Awaitable[Result]], patience_seconds: float) -> Result:
    """Does `work` until it is not Unavailable, for at most `patience_seconds`. It must be safe to do twice."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return await work()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.05)
