"""Asks how a run is going: its learner over HTTP, or, when that one is silent, the run's board in Redis."""

import contextlib
from types import TracebackType
from typing import Self

from shared.clients import LearnerClient
from shared.errors import IbtpoError
from shared.protocol.status import RunStatus
from shared.runtime.client import http_client
from shared.streams import RunStreams, connect

ANSWER_SECONDS = 2.0


class StatusSource:
    """The status of one run, from whoever can tell it. An async context manager."""

    def __init__(self, run: str, redis_url: str | None, token: str | None) -> None:
        self._http = http_client(token, ANSWER_SECONDS)
        self._connection = connect(redis_url, timeout_seconds=ANSWER_SECONDS) if redis_url else None
        self._board = RunStreams(self._connection, run).board if self._connection else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
        if self._connection is not None:
            await self._connection.close()

    async def read(self, learner_url: str | None) -> RunStatus | None:
        """The latest status, or None when nobody knows one."""
        if learner_url and (status := await self._of_learner(learner_url)):
            return status
        return await self._of_board()

    async def request_stop(self, learner_url: str | None) -> bool:
        """Asks the run to end after its checkpoint; whether anyone heard it."""
        if learner_url:
            with contextlib.suppress(IbtpoError):
                await LearnerClient(self._http, learner_url).stop(ANSWER_SECONDS)
                return True
        if self._board is None:
            return False
        try:
            await self._board.request_stop()
        except IbtpoError:
            return False
        return True

    async def _of_learner(self, url: str) -> RunStatus | None:
        try:
            return await LearnerClient(self._http, url).status(ANSWER_SECONDS)
        except IbtpoError:
            return None

    async def _of_board(self) -> RunStatus | None:
        if self._board is None:
            return None
        try:
            return await self._board.read()
        except IbtpoError:
            return None
