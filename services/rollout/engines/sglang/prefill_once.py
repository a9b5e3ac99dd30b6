"""Lets a fresh prompt be computed once: of requests that ask for the same tokens at once, one goes ahead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Lead:
    """The request that goes ahead for its siblings."""

    num_siblings: int = 0
    computed: asyncio.Event = field(default_factory=asyncio.Event)


class Siblings:
    """A server shares a prefix only once it is in its cache, which is when the first token of its request is out.

    Siblings are those whose calls are made in one turn of the event loop, as a tree draws its branches.
    """

    def __init__(self) -> None:
        self._leads: dict[tuple[int, ...], Lead] = {}

    @asynccontextmanager
    async def turn(self, token_ids: tuple[int, ...]) -> AsyncIterator[Lead | None]:
        """Waits for this request's turn. Gives the lead when others wait for this one: it sets `computed` as soon
        as its first token is out. However the block ends, the others wait no longer."""
        lead = self._leads.get(token_ids)
        if lead is not None:
            lead.num_siblings += 1
            await lead.computed.wait()
            yield None
            return
        lead = self._leads[token_ids] = Lead()
        try:
            try:
                await asyncio.sleep(0)  # siblings of the same turn join here
            finally:
                if not lead.num_siblings:
                    del self._leads[token_ids]
            yield lead if lead.num_siblings else None
        finally:
            lead.computed.set()
            if self._leads.get(token_ids) is lead:
                del self._leads[token_ids]
