"""Fixtures of the whole suite: a real Redis-compatible server, as a process that a test may kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_process import RedisProcess


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server of this test alone."""
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisProcess(directory, aof=True)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_process: RedisProcess) -> str:
    """Where that server is."""
    return redis_process.url
