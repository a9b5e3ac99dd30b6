"""A run's status, the request to stop it, and its learner's URL."""

import time

from pydantic import ValidationError

from shared.errors import InvalidInput
from shared.protocol.status import RunStatus
from shared.streams.connection import Connection
from shared.streams.keys import RUNS, RunKeys


class RunStatusKeys:
    """Where a run publishes its status and reads requests. The keys outlive the run, so that its end can be read."""

    def __init__(self, connection: Connection, keys: RunKeys) -> None:
        self._connection = connection
        self._keys = keys

    async def publish(self, status: RunStatus) -> None:
        """Replaces the status, and adds the run to `list_runs`."""
        await self._connection.command("SET", self._keys.status, status.model_dump_json())
        await self._connection.command("ZADD", RUNS, time.time(), self._keys.run)

    async def read(self) -> RunStatus | None:
        """The latest status, None before the first; InvalidInput when another release wrote it."""
        text = await self._connection.command("GET", self._keys.status)
        if text is None:
            return None
        try:
            return RunStatus.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInput(
                f"the status of run {self._keys.run!r} is from another release of ibtpo: {error}"
            ) from error

    async def request_stop(self) -> None:
        """Asks the learner to end the run in good order."""
        await self._connection.command("SET", self._keys.stop, "1")

    async def is_stop_requested(self) -> bool:
        return bool(await self._connection.command("EXISTS", self._keys.stop))

    async def clear_stop(self) -> None:
        """Deletes the request, so that a new learner is not stopped by an old one."""
        await self._connection.command("DEL", self._keys.stop)

    async def announce_learner(self, url: str) -> None:
        """Publishes where the learner serves weights and status."""
        await self._connection.command("SET", self._keys.learner, url)

    async def learner_url(self) -> str | None:
        """The latest learner's URL; None before the first."""
        url = await self._connection.command("GET", self._keys.learner)
        return None if url is None else url.decode(errors="replace")
