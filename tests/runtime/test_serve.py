"""A service as a process: its listening socket, its drain, its exit codes."""

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.errors import Conflict, InvalidInput
from shared.runtime.drain import Drain, ExitCode
from shared.runtime.serve import open_listener, require_token_beyond_loopback, serve_in_background, url_of
from tests.runtime.small_service import TOKEN, small_app
from tests.waiting import wait_until

SCRIPT = Path(__file__).with_name("small_service.py")


class SmallProcess:
    """The small service in a process of its own."""

    def __init__(self, directory: Path, *, life: str = "", token: str = "", grace_seconds: float = 5.0) -> None:
        self.url_file = directory / "url"
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "127.0.0.1", "0", token, str(grace_seconds), str(self.url_file)],
                env={**os.environ, "SMALL_LIFE": life},
                stderr=log,
            )

    def url(self) -> str:
        wait_until(lambda: self._is_alive() and self.url_file.exists(), what=self.log_text)
        return self.url_file.read_text()

    def wait_for(self, event: str) -> None:
        wait_until(lambda: self._is_alive() and f'"{event}"' in self.log_text(), what=self.log_text)

    def _is_alive(self) -> bool:
        assert self.process.poll() is None, self.log_text()
        return True

    def exit_code(self) -> int:
        return self.process.wait(20)

    def log_text(self) -> str:
        return self._log.read_text()

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._log.read_text().splitlines()]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., SmallProcess]]:
    started: list[SmallProcess] = []

    def start(**how: Any) -> SmallProcess:
        started.append(SmallProcess(tmp_path, **how))
        return started[-1]

    yield start
    for small in started:
        small.process.kill()
        small.process.wait()


async def test_at_sigterm_work_and_requests_in_flight_finish_and_new_ones_are_sent_away(
    processes: Callable[..., SmallProcess],
) -> None:
    small = processes(life="works")
    async with httpx.AsyncClient(base_url=small.url()) as client:
        slow = asyncio.create_task(client.get("/v1/slow/2000"))
        await asyncio.to_thread(small.wait_for, "slow_begun")
        assert (await client.get("/readyz")).is_success
        small.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(small.wait_for, "draining")
        ready, health, refused = [await client.get(path) for path in ("/readyz", "/healthz", "/v1/slow/1")]
        assert (ready.status_code, health.status_code, refused.status_code) == (503, 200, 503)
        assert "draining" in ready.json()["detail"]
        assert (await slow).json() == "done"
    assert small.exit_code() == ExitCode.DONE
    assert {"work_finished", "request"} <= set(small.events())
    assert small.events()[-2:] == ["ended", "exited"]
    assert not small.url_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_ends_at_once(processes: Callable[..., SmallProcess], number: signal.Signals) -> None:
    small = processes(grace_seconds=20)
    small.url()
    start = time.monotonic()
    small.process.send_signal(number)
    assert small.exit_code() == ExitCode.DONE
    assert time.monotonic() - start < 5


async def test_what_outlasts_the_grace_is_cut_and_the_exit_code_says_so(processes: Callable[..., SmallProcess]) -> None:
    small = processes(grace_seconds=0.3)
    async with httpx.AsyncClient(base_url=small.url()) as client:
        slow = asyncio.create_task(client.get("/v1/slow/60000", timeout=60))
        await asyncio.to_thread(small.wait_for, "slow_begun")
        small.process.send_signal(signal.SIGTERM)
        assert (await slow).status_code == 503
    assert small.exit_code() == ExitCode.GRACE_EXCEEDED


async def test_a_second_signal_ends_the_grace(processes: Callable[..., SmallProcess]) -> None:
    small = processes(grace_seconds=60)
    async with httpx.AsyncClient(base_url=small.url()) as client:
        slow = asyncio.create_task(client.get("/v1/slow/60000", timeout=60))
        await asyncio.to_thread(small.wait_for, "slow_begun")
        small.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(small.wait_for, "draining")
        small.process.send_signal(signal.SIGTERM)
        assert (await slow).status_code == 503
    assert small.exit_code() == ExitCode.GRACE_EXCEEDED


def test_a_failed_start_is_told_once_and_exits_with_its_code(processes: Callable[..., SmallProcess]) -> None:
    small = processes(life="fails")
    assert small.exit_code() == ExitCode.STARTUP_FAILED
    assert small.events() == ["service_failed"]
    assert "no model at /nowhere" in small.log_text()


def test_a_start_that_takes_too_long_can_be_ended(processes: Callable[..., SmallProcess]) -> None:
    small = processes(life="hangs")
    small.wait_for("hanging")
    small.process.send_signal(signal.SIGTERM)
    assert small.exit_code() == ExitCode.INTERRUPTED
    assert small.events()[-1] == "ended_while_starting"


def test_a_third_signal_ends_what_clings(processes: Callable[..., SmallProcess]) -> None:
    small = processes(life="clings")
    small.url()
    small.process.send_signal(signal.SIGTERM)
    small.wait_for("clinging")
    small.process.send_signal(signal.SIGTERM)
    # sent again and again: two signals in the same instant arrive as one
    wait_until(lambda: small.process.send_signal(signal.SIGTERM) or small.process.poll() is not None)
    assert small.exit_code() == -signal.SIGTERM


def test_a_service_may_end_itself_with_its_own_code(processes: Callable[..., SmallProcess]) -> None:
    assert processes(life="ends").exit_code() == 7


async def test_the_log_is_json_lines_without_the_token(processes: Callable[..., SmallProcess]) -> None:
    small = processes(token=TOKEN)
    async with httpx.AsyncClient(base_url=small.url()) as client:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer guess"}):
            await client.get(f"/v1/errors/other?token={TOKEN}", headers=headers)
    small.process.send_signal(signal.SIGTERM)
    assert small.exit_code() == ExitCode.DONE
    assert {"listening", "request_failed", "request", "draining", "exited"} <= set(small.events())
    assert TOKEN not in small.log_text()
    assert "guess" not in small.log_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_a_door_to_strangers_needs_a_token(host: str) -> None:
    for token in (None, ""):
        with pytest.raises(InvalidInput, match="IBTPO_TOKEN"):
            require_token_beyond_loopback(host, token)
    require_token_beyond_loopback(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_a_door_on_loopback_needs_none(host: str) -> None:
    require_token_beyond_loopback(host, None)


def test_a_taken_port_and_an_unknown_host_are_explained() -> None:
    with open_listener("127.0.0.1", 0, None) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}.*another port"):
            open_listener("127.0.0.1", port, None)
    with pytest.raises(InvalidInput, match="no address of this machine"):
        open_listener("no.such.host.invalid", 0, TOKEN)


def test_a_url_is_one_that_this_machine_can_use() -> None:
    with open_listener("0.0.0.0", 0, TOKEN) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        with open_listener("::1", 0, None) as listener:
            assert url_of(listener).startswith("http://[::1]:")


async def test_a_service_on_all_addresses_answers_ipv4_and_ipv6() -> None:
    listener = open_listener("::", 0, TOKEN)
    port = listener.getsockname()[1]
    async with serve_in_background(small_app(), listener), httpx.AsyncClient() as client:
        for host in ("127.0.0.1", "[::1]"):
            assert (await client.get(f"http://{host}:{port}/readyz")).is_success


def test_a_machine_without_ipv6_has_all_addresses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int, *kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *kind)

    monkeypatch.setattr("shared.runtime.serve.socket.socket", without_ipv6)
    with open_listener("::", 0, TOKEN) as listener:
        assert listener.family == socket.AF_INET


async def test_an_app_can_be_served_inside_another_program(tmp_path: Path) -> None:
    app, url_file = small_app(), tmp_path / "url"
    async with serve_in_background(app, open_listener("127.0.0.1", 0, None), url_file) as url:
        assert url_file.read_text() == url == app.state.url
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/readyz")).is_success
    assert not url_file.exists()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/readyz")


async def test_a_failed_finishing_step_does_not_hinder_the_others() -> None:
    drain, done = Drain(), []

    async def fails() -> None:
        raise RuntimeError("no")

    async def works() -> None:
        done.append(True)

    drain.before_exit(fails)
    drain.before_exit(works)
    drain.begin()
    assert await drain.finish(5) == ExitCode.DONE
    assert done == [True]
