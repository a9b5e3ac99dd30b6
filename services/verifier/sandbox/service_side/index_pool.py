"""The places in which jailed processes run: numbers that are lent in order of asking."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class IndexPool:
    """Lends numbers 0..count-1, each to one holder at a time."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._asking = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[int]:
        async with self._asking:
            place = self._free.pop()
            try:
                yield place
            finally:
                self._free.append(place)
