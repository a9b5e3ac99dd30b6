"""Lets a fresh prompt be computed once: of requests that ask for the same tokens at once, one goes ahead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Leader:
    """The request that goes ahead for its siblings."""

    num_followers: int = 0
    computed: asyncio.Event = field(default_factory=asyncio.Event)


class PrefillOnce:
    """A server shares a prefix only once it is in its cache, which is when the first token of its request is out.

    PrefillOnce are those whose calls are made in one turn of the event loop, as a tree draws its branches.
    """

    def __init__(self) -> None:
        self._leaders: dict[tuple[int, ...], Leader] = {}

    @asynccontextmanager
    async def lead_or_wait(self, token_ids: tuple[int, ...]) -> AsyncIterator[Leader | None]:
        """Waits for this request's turn. Gives the leader when others wait for this one: it sets `computed` as soon
        as its first token is out. However the block ends, the others wait no longer."""
        leader = self._leaders.get(token_ids)
        if leader is not None:
            leader.num_followers += 1
            await leader.computed.wait()
            yield None
            return
        leader = self._leaders[token_ids] = Leader()
        try:
            try:
                await asyncio.sleep(0)  # siblings of the same turn join here
            finally:
                if not leader.num_followers:
                    del self._leaders[token_ids]
            yield leader if leader.num_followers else None
        finally:
            leader.computed.set()
            if self._leaders.get(token_ids) is leader:
                del self._leaders[token_ids]
