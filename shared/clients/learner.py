"""Calls to the learner: its latest weights, where its run is, and the request to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import TypeAdapter

from shared.errors import MalformedAnswer
from shared.protocol.status import RunStatus
from shared.runtime.exchange import Exchange
from shared.tree.draw import WeightVersion

_STATUS = TypeAdapter(RunStatus)


class LearnerClient:
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._exchange = Exchange(http, url, f"the learner at {url}")

    @asynccontextmanager
    async def latest_weights(self) -> AsyncIterator[tuple[WeightVersion, AsyncIterator[bytes]]]:
        """The version that the learner published last, and its framed bundle (shared.weights). Without a deadline."""
        async with self._exchange.open("GET", "/v1/weights/latest", None) as response:
            try:
                version = WeightVersion.parse(response.headers.get("X-Weight-Version", ""))
            except ValueError as error:
                raise MalformedAnswer(
                    f"{self._exchange.name} does not say in X-Weight-Version what it sends: {error}"
                ) from error
            yield version, response.aiter_bytes()

    async def status(self, within_seconds: float) -> RunStatus:
        return self._exchange.read(_STATUS, await self._exchange.request("GET", "/v1/status", within_seconds))

    async def stop(self, within_seconds: float) -> RunStatus:
        """Ends the run after the step in progress and a checkpoint."""
        return self._exchange.read(_STATUS, await self._exchange.request("POST", "/v1/stop", within_seconds))
