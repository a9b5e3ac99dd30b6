"""The connection to Redis: every wait has a deadline, and an outage raises Unavailable until it is over."""

import asyncio
import random
import re
import time
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
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
_OLDEST_VERSION = (6, 2)
# redis-py removes the codes that it knows from the message
_CODE_OF_ERROR: dict[type[RedisError], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    MovedError: "MOVED",
    AskError: "ASK",
    ClusterCrossSlotError: "CROSSSLOT",
}
# Redis before 7 wraps the error of a command in a script: "ERR Error running script …: -OOM command not allowed …"
_WRAPPED = re.compile(r"(?:ERR )?Error running script .*?: -?([A-Z]{2,}) ", re.DOTALL)
_OF_A_REPLICA = frozenset({"READONLY", "MASTERDOWN", "UNBLOCKED"})
_OF_A_CLUSTER = frozenset({"MOVED", "ASK", "CROSSSLOT"})
# "Protocol error: unauthenticated …" answers a long command where a password is wanted
_PASSING = frozenset({"Protocol", "BUSY", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", *_OF_A_REPLICA})


class CommandRefused(IbtpoError):
    """Redis understood a command and refuses it: no later try helps before somebody changes something there."""

    title = "refused by Redis"


class PasswordRefused(Unavailable):
    """The password is missing or wrong; while it is being changed, a later try may succeed."""


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
        except AuthenticationError as error:
            self._note_failure()
            raise PasswordRefused(
                f"Redis at {self.address} refuses the password: {error}; give the right one as "
                "redis://:PASSWORD@host:port/0, percent-encoded"
            ) from error
        except (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError) as error:
            self._note_failure()
            reason = str(error) or type(error).__name__
            raise Unavailable(f"Redis at {self.address} does not answer: {reason}; is it running there?") from error
        except RedisError as error:
            self._note_success()
            raise await self._refusal(error, words) from error
        self._note_success()
        return reply

    async def script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        """The reply of a Lua script, which runs as one transaction."""
        return await self.command("EVAL", text, len(keys), *keys, *arguments)

    async def incarnation(self) -> str:
        """Identifies the server process; after a restart it may have lost the last second, or everything."""
        return (await self.info()).get("run_id", "unknown")

    async def vet(self) -> str:
        """Why this server may lose entries; empty where it does not. InvalidInput for one that is too old, or refuses
        the password."""
        try:
            info = await self.info()
        except PasswordRefused as error:
            raise InvalidInput(str(error)) from error
        version = info.get("redis_version", "")
        if re.match(r"\d+\.\d+", version) and tuple(map(int, version.split(".")[:2])) < _OLDEST_VERSION:
            raise InvalidInput(f"Redis at {self.address} is version {version}; use 6.2 or later, or Valkey")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy == "noeviction":
            return ""
        return (
            f"Redis at {self.address} has maxmemory-policy {policy}, which deletes tasks and trees when it is full; "
            "set it to noeviction"
        )

    async def info(self) -> dict[str, str]:
        """What the server tells of itself, by name."""
        info: str = (await self.command("INFO")).decode(errors="replace")
        return dict(line.strip().split(":", 1) for line in info.splitlines() if ":" in line)

    async def _refusal(self, error: RedisError, words: tuple[Any, ...]) -> IbtpoError:
        """What an error reply means; connections to a server that is no master any more are dropped."""
        code = _code_of(error)
        if code in _OF_A_REPLICA:
            # the address may lead to the new master by now; open connections do not
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        if code == "OOM":
            return StreamsFull(f"Redis at {self.address} is at its maxmemory: {error}")
        if code in _PASSING:
            return Unavailable(f"Redis at {self.address} cannot do this now: {error}")
        if code == "WRONGTYPE":
            keys = " or ".join(word for word in words if isinstance(word, str) and word.startswith("ibtpo:"))
            return CommandRefused(
                f"Redis at {self.address} holds something else under {keys} (WRONGTYPE): delete the key, or give ibtpo "
                "a database that no other program writes to"
            )
        if code in _OF_A_CLUSTER:
            return CommandRefused(
                f"Redis at {self.address} is one node of a Redis Cluster ({code} {error}), which ibtpo does not use: "
                "give the URL of a single server, or of its primary"
            )
        return CommandRefused(f"Redis at {self.address} refused {words[0]}: {error}")

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

    InvalidInput for a URL that cannot be right, without showing it: it may hold a password.
    """
    address = _address(url)
    try:
        # with all connections in use a command waits for one, within its deadline
        pool = BlockingConnectionPool.from_url(
            url,
            timeout=None,
            socket_connect_timeout=min(timeout_seconds, max(_CONNECT_SECONDS, timeout_seconds / 2)),
            socket_timeout=None,  # `command` sets the deadline: it knows how long a command may block
            max_connections=max_connections,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (ValueError, RedisError):
        raise _not_a_url() from None
    redis = Redis.from_pool(pool)
    redis.response_callbacks.clear()
    return Connection(redis, address, timeout_seconds)


def _address(url: str) -> str:
    """The URL without its credentials and options. InvalidInput where the parts of a URL cannot be told apart."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _not_a_url() from None
    # a password with "/", "?" or "#" that is not percent-encoded ends up in the path, the query or the fragment
    is_path = parts.scheme == "unix" or ("@" not in parts.query and re.fullmatch(r"/?\d*", parts.path))
    if not is_path or "@" in parts.fragment:
        raise _not_a_url()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path}"


def _not_a_url() -> InvalidInput:
    return InvalidInput(
        "not a Redis URL (it is not shown, since it may hold a password): give redis://host:port/0, rediss:// for TLS "
        "or unix://path, with a password as redis://:PASSWORD@host:port/0, percent-encoded ('/' is %2F, '@' is %40)"
    )


def _code_of(error: RedisError) -> str:
    """The first word of an error reply, also where redis-py removed it or a script of Redis 6 wrapped it."""
    for kind in type(error).__mro__:
        if kind in _CODE_OF_ERROR:
            return _CODE_OF_ERROR[kind]
    text = str(error)
    wrapped = _WRAPPED.match(text)
    return wrapped[1] if wrapped else text.split(" ", 1)[0]
