"""Fixtures of the whole suite: a real Redis-compatible server, as a process that a test may kill."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from services.launcher.processes.redis_server import find_redis_server
from shared.runtime.child_process import find_free_port


class RedisProcess:
    """A real server on a private port and directory, with an append-only file."""

    def __init__(self, directory: Path) -> None:
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary, _ = find_redis_server()
        settings = f"--bind 127.0.0.1 --port {self.port} --dir {self._directory} --appendonly yes --appendfsync always"
        self._process = subprocess.Popen(
            [str(binary), *settings.split(), "--save", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                if line.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise TimeoutError("the Redis of this test did not start")

    def command(self, *words: str) -> object:
        """Does one command, as an operator would."""
        with Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server of this test alone."""
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisProcess(directory)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_process: RedisProcess) -> str:
    """Where that server is."""
    return redis_process.url
