"""What a Redis says of itself, for people who ask whether it is fit: it is only read, and nothing is changed there."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.errors import Unavailable
from shared.streams.connection import CommandRefused, Connection

_GREETING_BYTES = 64
_GREETINGS = (b"+PONG", b"-NOAUTH", b"-LOADING", b"-MASTERDOWN", b"-DENIED", b"-NOPERM", b"-BUSY", b"-ERR")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`saves` is the setting of that name, None where the server does not tell; `write_trouble` is what its last write
    to disk came to where that failed; `clock_ahead_seconds` compares its clock with this machine's."""

    software: str
    is_primary: bool
    is_cluster: bool
    policy: str
    used_bytes: int
    max_bytes: int
    appends: bool
    saves: str | None
    write_trouble: str
    evicted_keys: int
    clients: int
    max_clients: int
    clock_ahead_seconds: float
    answer_seconds: float


async def greet(url: str, seconds: float) -> None:
    """Returns if what listens at `url` answers as a Redis does, reading a few bytes alone; Unavailable otherwise.

    Over TLS nothing is asked: the first command tells."""
    parts = urlsplit(url)
    if parts.scheme == "rediss":
        return
    async with asyncio.timeout(seconds):
        if parts.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(parts.path)
        else:
            reader, writer = await asyncio.open_connection(parts.hostname or "localhost", parts.port or 6379)
        try:
            writer.write(b"PING\r\n")
            await writer.drain()
            answer = await reader.read(_GREETING_BYTES)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not answer.startswith(_GREETINGS):
        shown = repr(answer.partition(b"\r\n")[0])[1:] if answer else "nothing, and closes the connection"
        raise Unavailable(f"it is no Redis: to PING it answers {shown}; correct host and port")


async def inspect_server(connection: Connection) -> ServerFacts:
    """Asks INFO, TIME and CONFIG; a refusal of the last is no error, for hosted servers have none."""
    started = time.time()
    seconds, microseconds = await connection.command("TIME")
    ended = time.time()
    info = await connection.info()
    saves: str | None = None
    with contextlib.suppress(CommandRefused):
        found = await connection.command("CONFIG", "GET", "save")
        saves = found[1].decode(errors="replace") if found else None
    return ServerFacts(
        software=_software(info),
        is_primary=info.get("role", "master") == "master",
        is_cluster=info.get("cluster_enabled") == "1",
        policy=info.get("maxmemory_policy", "noeviction"),
        used_bytes=_number(info, "used_memory"),
        max_bytes=_number(info, "maxmemory"),
        appends=info.get("aof_enabled") == "1",
        saves=saves,
        write_trouble=_write_trouble(info),
        evicted_keys=_number(info, "evicted_keys"),
        clients=_number(info, "connected_clients"),
        max_clients=_number(info, "maxclients"),
        clock_ahead_seconds=int(seconds) + int(microseconds) / 1e6 - (started + ended) / 2,
        answer_seconds=ended - started,
    )


def _software(info: dict[str, str]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _write_trouble(info: dict[str, str]) -> str:
    names = {
        "aof_last_write_status": "append",
        "aof_last_bgrewrite_status": "rewrite",
        "rdb_last_bgsave_status": "save",
    }
    return ", ".join(what for name, what in names.items() if info.get(name, "ok") != "ok")


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "0")
    return int(text) if text.isdigit() else 0
