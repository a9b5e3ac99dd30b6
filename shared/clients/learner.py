"""Calls to the learner: its latest weights, where its run is, and the request to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from shared.clients.download import OpenDownload, ResumePoint, download
from shared.errors import MalformedAnswer
from shared.protocol.status import RunStatus
from shared.protocol.weights import Base
from shared.runtime.client import token_of
from shared.runtime.exchange import Exchange
from shared.tree.draw import WeightVersion

_STATUS = TypeAdapter(RunStatus)


class LearnerClient:
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url.rstrip("/")
        self._exchange = Exchange(http, url, f"the learner at {url}")

    @asynccontextmanager
    async def latest_weights(
        self, have: Base | None = None, resume: ResumePoint | None = None
    ) -> AsyncIterator[tuple[WeightVersion, OpenDownload]]:
        """The version that the learner published last, and the framed transfer (shared.weights) that leads to it from
        what is here, or what follows those bytes of it that came before."""
        asked = f"?base={quote(str(have.version))}&hash={have.content_hash}" if have else ""
        url = f"{self._url}/v1/weights/latest{asked}"
        async with download(url, name=self._exchange.name, token=token_of(self._http), resume=resume) as found:
            try:
                version = WeightVersion.parse(found.headers.get("X-Weight-Version", ""))
            except ValueError as error:
                raise MalformedAnswer(
                    f"{self._exchange.name} does not say in X-Weight-Version what it sends: {error}"
                ) from error
            yield version, found

    async def status(self, within_seconds: float) -> RunStatus:
        return self._exchange.read(_STATUS, await self._exchange.request("GET", "/v1/status", within_seconds))

    async def stop(self, within_seconds: float) -> RunStatus:
        """Ends the run after the step in progress and a checkpoint."""
        return self._exchange.read(_STATUS, await self._exchange.request("POST", "/v1/stop", within_seconds))
