"""A real server, shared by the tests that do not harm it, and servers for those that do."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from shared.streams import Connection, RunStreams, connect
from tests.redis_process import RedisProcess, installed_servers

_numbers = itertools.count()


@pytest.fixture(scope="session", params=installed_servers().items(), ids=lambda item: item[0])
def server_binary(request: pytest.FixtureRequest) -> Path:
    """Each test runs against every kind of server that the machine has."""
    _, binary = request.param
    assert isinstance(binary, Path)
    return binary


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, server_binary: Path) -> Iterator[RedisProcess]:
    """A server for every test that leaves it as it is."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"), aof=False, binary=server_binary)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_server(tmp_path: Path, server_binary: Path) -> Iterator[Callable[[bool], RedisProcess]]:
    """Starts a server of this test alone, with or without an append-only file."""
    servers: list[RedisProcess] = []

    def start(aof: bool) -> RedisProcess:
        servers.append(RedisProcess(tmp_path, aof=aof, binary=server_binary))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
async def connection(shared_server: RedisProcess) -> AsyncIterator[Connection]:
    connection = connect(shared_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def run(connection: Connection) -> RunStreams:
    """A run that no other test knows. A claim counts as abandoned after 0.2 s."""
    return RunStreams(connection, f"run-{next(_numbers)}", claim_after_seconds=0.2)
