"""Reads a run's status from its learner over HTTP; from Redis when the learner does not answer."""

import contextlib
from typing import Self

from shared.clients import LearnerClient
from shared.errors import IbtpoError
from shared.protocol.status import RunStatus
from shared.runtime.client import http_client
from shared.streams import RunStreams, connect

ANSWER_SECONDS = 2.0


class StatusSource:
    """Where to read the status of one run, and to ask it to stop. An async context manager."""

    def __init__(self, run: str, redis_url: str | None, token: str | None) -> None:
        self._http = http_client(token, ANSWER_SECONDS)
        self._connection = connect(redis_url, timeout_seconds=ANSWER_SECONDS) if redis_url else None
        self._status_keys = RunStreams(self._connection, run).status_keys if self._connection else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._connection is not None:
            await self._connection.close()

    async def read(self, learner_url: str | None) -> RunStatus | None:
        """The latest status; None when neither the learner nor Redis has one."""
        if learner_url:
            with contextlib.suppress(IbtpoError):
                return await LearnerClient(self._http, learner_url).status(ANSWER_SECONDS)
        if self._status_keys is not None:
            with contextlib.suppress(IbtpoError):
                return await self._status_keys.read()
        return None

    async def request_stop(self, learner_url: str | None) -> bool:
        """Asks the run to end after its next checkpoint; False when neither the learner nor Redis took the request."""
        if learner_url:
            with contextlib.suppress(IbtpoError):
                await LearnerClient(self._http, learner_url).stop(ANSWER_SECONDS)
                return True
        if self._status_keys is not None:
            with contextlib.suppress(IbtpoError):
                await self._status_keys.request_stop()
                return True
        return False
