"""Fixtures of the whole suite: a real Redis-compatible server, as a process that a test may kill."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from shared import kinds
from tests.redis_process import RedisProcess

# how long an example takes says something of the machine, nothing of the code
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# what the tests call listens on this machine, where no proxy of the environment leads
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
    filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1", "localhost", "::1"))
)


@pytest.fixture(autouse=True)
def own_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a service that ran in this process permits ends with its test."""
    monkeypatch.setattr(kinds._Permission, "packages", None)


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
