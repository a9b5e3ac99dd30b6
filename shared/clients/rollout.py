"""Calls to a rollout replica: grow a tree, score given continuations, push weights."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import httpx
from pydantic import TypeAdapter

from shared.errors import InvalidInput, MalformedAnswer, Unavailable
from shared.protocol.grow import GrowRequest, GrowthEvent, GrowthFailed, TreeGrown
from shared.protocol.score import ScoredContinuation, ScoringRequest, ScoringResponse
from shared.protocol.tree import ScoredTree
from shared.protocol.weights import Offer
from shared.runtime.exchange import MSGPACK, Exchange
from shared.weights import Snapshot, bundle_length, stream_bundle


async def _counted(body: AsyncIterator[bytes], on_bytes: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    async for piece in body:
        yield piece
        on_bytes(len(piece))


_EVENT: TypeAdapter[GrowthEvent] = TypeAdapter(GrowthEvent)
_SCORES = TypeAdapter(ScoringResponse)


class RolloutClient:
    """One replica; `name` stands for it in errors."""

    def __init__(self, http: httpx.AsyncClient, url: str, name: str = "") -> None:
        self._exchange = Exchange(http, url, f"replica {name}" if name else f"the rollout replica at {url}")

    async def grow(self, request: GrowRequest, within_seconds: float) -> ScoredTree:
        request = request.model_copy(update={"stream": False})
        body = await self._exchange.request("POST", "/v1/trees", within_seconds, message=request, accept=MSGPACK)
        return self._unpack(body)

    async def watch(
        self, request: GrowRequest, within_seconds: float, on_event: Callable[[GrowthEvent], None]
    ) -> ScoredTree:
        """Grows one tree and reports every event of its growth, the last one included."""
        request = request.model_copy(update={"stream": True})
        async with self._exchange.open_lines("/v1/trees", request, within_seconds) as lines:
            async for line in lines:
                event = self._exchange.read(_EVENT, line)
                on_event(event)
                if isinstance(event, GrowthFailed):
                    error = InvalidInput if event.title == InvalidInput.title else Unavailable
                    raise error(f"the tree could not be grown: {event.detail}")
                if isinstance(event, TreeGrown):
                    return self._unpack(event.tree)
        raise MalformedAnswer(f"{self._exchange.name} ended its answer before the tree was complete; see its log")

    async def score(self, request: ScoringRequest, within_seconds: float) -> tuple[ScoredContinuation, ...]:
        """The log-probabilities of each item's continuation, in the order of the items."""
        body = await self._exchange.request("POST", "/v1/scores", within_seconds, message=request)
        scores = self._exchange.read(_SCORES, body).scores
        if len(scores) != len(request.items):
            raise MalformedAnswer(f"{self._exchange.name} scored {len(scores)} of {len(request.items)} continuations")
        return scores

    async def push_weights(
        self, snapshot: Snapshot, within_seconds: float, on_bytes: Callable[[int], None] = lambda _: None
    ) -> None:
        """Sends a policy bundle, and reports each piece of it; returns when the replica serves it. The snapshot must
        stay on the disk meanwhile."""
        manifest = snapshot.manifest
        headers = {"Content-Length": str(bundle_length(manifest)), "Content-Type": "application/octet-stream"}
        path = f"/v1/weights/{snapshot.version}"
        async with (
            aclosing(stream_bundle(manifest, snapshot.directory)) as body,
            aclosing(_counted(body, on_bytes)) as counted,
            self._exchange.open("PUT", path, within_seconds, content=counted, headers=headers) as response,
        ):
            await response.aread()

    async def offer_weights(self, offer: Offer, within_seconds: float) -> None:
        """Tells the replica that it may fetch a version; returns when it serves that, or a newer one. Conflict,
        InvalidInput or Unavailable where it does not."""
        await self._exchange.request("PUT", f"/v1/weights/{offer.version}", within_seconds, message=offer)

    def _unpack(self, packed: bytes | str) -> ScoredTree:
        """From its packed form, or from that as base64."""
        try:
            return ScoredTree.unpack(base64.b64decode(packed) if isinstance(packed, str) else packed)
        except (InvalidInput, ValueError) as error:
            raise MalformedAnswer(f"{self._exchange.name} answered with no tree: {error}") from error
