"""Has the server compute a new prompt once: of simultaneous requests with the same tokens, one goes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Leader:
    """The request that goes first; the others with its tokens follow."""

    num_followers: int = 0
    computed: asyncio.Event = field(default_factory=asyncio.Event)


class PrefillOnce:
    """A server shares a prefix only once it is cached, which is when its request has its first token.

    Simultaneous are calls in one iteration of the event loop, as when a tree draws its branches.
    """

    def __init__(self) -> None:
        self._leaders: dict[tuple[int, ...], Leader] = {}

    @asynccontextmanager
    async def lead_or_wait(self, token_ids: tuple[int, ...]) -> AsyncIterator[Leader | None]:
        """The first request with these tokens enters the block at once, the others once it has its first token or has
        left. Yields the leader to the first request if others follow: it must set `computed` at its first token."""
        leader = self._leaders.get(token_ids)
        if leader is not None:
            leader.num_followers += 1
            await leader.computed.wait()
            yield None
            return
        leader = self._leaders[token_ids] = Leader()
        try:
            try:
                await asyncio.sleep(0)  # followers register here
            finally:
                if not leader.num_followers:
                    del self._leaders[token_ids]
            yield leader if leader.num_followers else None
        finally:
            leader.computed.set()
            if self._leaders.get(token_ids) is leader:
                del self._leaders[token_ids]
