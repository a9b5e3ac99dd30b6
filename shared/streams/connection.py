"""The connection to Redis: every wait has a deadline, and an outage raises Unavailable until it is over."""

import asyncio
import random
import time
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import IbtpoError, InvalidInput, Unavailable

_CONNECT_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.05
_MOST_PAUSE_SECONDS = 1.0
_PASSING_ERRORS = (ReadOnlyError, ClusterDownError, MasterDownError, TryAgainError)
_PASSING_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED"})


class CommandRefused(IbtpoError):
    """Redis understood a command and refuses it."""

    title = "refused by Redis"


class StreamsFull(Unavailable):
    """Redis is at its maxmemory: it stores nothing new, but still reads and deletes."""


class Connection:
    """Sends commands to one Redis or Valkey server; replies come raw (bytes, ints, lists).

    It never repeats a command: one whose reply was lost may have been done. While the server is away, commands are
    spaced out, at most a second apart, and each raises Unavailable. `address` is the server's URL without credentials.
    """

    def __init__(self, redis: Redis, address: str, timeout_seconds: float) -> None:
        self.address = address
        self._redis = redis
        self._timeout_seconds = timeout_seconds
        self._num_failures = 0
        self._closed_until = 0.0

    async def command(self, *words: Any, waits_seconds: float = 0.0) -> Any:
        """The raw reply to one command; Unavailable while no server can do it.

        `waits_seconds` is how long the command itself may block in the server.
        """
        await self._pause()
        try:
            async with asyncio.timeout(self._timeout_seconds + waits_seconds):
                reply = await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            self._note_failure()
            reason = str(error) or type(error).__name__
            raise Unavailable(f"Redis at {self.address} does not answer: {reason}; is it running there?") from error
        except RedisError as error:
            self._note_success()
            if isinstance(error, OutOfMemoryError):
                raise StreamsFull(f"Redis at {self.address} is at its maxmemory: {error}") from error
            if isinstance(error, _PASSING_ERRORS) or str(error).split(" ", 1)[0] in _PASSING_CODES:
                raise Unavailable(f"Redis at {self.address} cannot do this now: {error}") from error
            raise CommandRefused(f"Redis at {self.address} refused {words[0]}: {error}") from error
        self._note_success()
        return reply

    async def script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        """The reply of a Lua script, which runs as one transaction."""
        return await self.command("EVAL", text, len(keys), *keys, *arguments)

    async def incarnation(self) -> str:
        """Identifies the server process; after a restart it may have lost the last second, or everything."""
        info: str = (await self.command("INFO", "server")).decode()
        fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        return fields.get("run_id", "unknown").strip()

    async def close(self) -> None:
        """Closes all sockets."""
        await self._redis.aclose()

    async def _pause(self) -> None:
        wait_seconds = self._closed_until - time.monotonic()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)

    def _note_failure(self) -> None:
        self._num_failures += 1
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(self._num_failures - 1, 16), _MOST_PAUSE_SECONDS)
        # spread out, so that replicas do not all come back in the same instant
        self._closed_until = time.monotonic() + pause * random.uniform(0.5, 1.0)

    def _note_success(self) -> None:
        self._num_failures = 0
        self._closed_until = 0.0


def connect(url: str, *, timeout_seconds: float = 5.0, max_connections: int = 64) -> Connection:
    """A connection to the server at `url` (redis://, rediss:// or unix://), opened by the first command.

    InvalidInput for a URL that cannot be right.
    """
    try:
        # with all connections in use a command waits for one, within its deadline
        pool = BlockingConnectionPool.from_url(
            url,
            timeout=None,
            socket_connect_timeout=min(timeout_seconds, _CONNECT_SECONDS),
            socket_timeout=None,  # `command` sets the deadline: it knows how long a command may block
            max_connections=max_connections,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (ValueError, RedisError) as error:
        raise InvalidInput(f"not a Redis URL: {_address(url)}: {error}; give redis://host:port/0") from error
    redis = Redis.from_pool(pool)
    redis.response_callbacks.clear()
    return Connection(redis, _address(url), timeout_seconds)


def _address(url: str) -> str:
    """The URL without its credentials."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an unreadable URL"
    return f"{parts.scheme}://{host}{port}{parts.path}"
