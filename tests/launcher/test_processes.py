"""The supervisor, with real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.service_processes import (
    Service,
    ServiceSpec,
    StopOrder,
    stop_in_order,
)
from shared.errors import Unavailable
from shared.runtime.child_process import is_alive
from tests.waiting import wait_until_async

pytestmark = pytest.mark.drill

MakeSpec = Callable[..., ServiceSpec]

QUICK = {"ready_seconds": 10, "max_restarts": 2}


@pytest.fixture
async def guard(tmp_path: Path) -> AsyncIterator[GuardProcess]:
    line = await GuardProcess.start(tmp_path / "guard.jsonl")
    yield line
    await line.close()


async def test_a_service_is_ready_once_it_answers(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("rollout-1"), guard, print)
    await service.start()
    await service.wait_ready(10)
    assert service.url.startswith("http://127.0.0.1:")
    await service.stop(5)
    assert service.exit_code == 0


async def test_a_service_that_exits_before_it_is_ready_shows_the_end_of_its_log(
    make_spec: MakeSpec, guard: GuardProcess
) -> None:
    script = """print('{"level": "error", "event": "bad_port", "port": 99999}'); raise SystemExit(2)"""
    service = Service(make_spec("verifier", script=script), guard, print)
    await service.start()
    with pytest.raises(Unavailable, match=r"verifier ended with exit code 2 before(.|\n)*error bad_port port=99999"):
        await service.wait_ready(10)


async def test_a_service_that_never_answers_fails_at_the_deadline(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("learner", script="import time; time.sleep(60)"), guard, print)
    await service.start()
    with pytest.raises(Unavailable, match="learner is not ready after 1 s"):
        await service.wait_ready(1.0)
    await service.stop(5)


async def test_a_killed_service_comes_back_at_the_same_url(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("verifier"), guard, print)
    await service.start()
    await service.wait_ready(10)
    url, pid = service.url, service.pid
    watch = asyncio.create_task(service.keep_running(**QUICK))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await wait_until_async(lambda: service.pid != pid)
    await service.wait_ready(10)
    assert service.url == url
    assert service.restarts == 1
    watch.cancel()
    await service.stop(5)


async def test_restarts_are_bounded(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("rollout-1"), guard, print)
    await service.start()
    await service.wait_ready(10)
    watch = asyncio.create_task(service.keep_running(**QUICK))
    for _ in range(3):
        pid = service.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await wait_until_async(lambda pid=pid: service.pid != pid or watch.done())  # type: ignore[misc]
    with pytest.raises(Unavailable, match=r"rollout-1 ended with signal SIGKILL after 2 restarts"):
        await watch


async def test_a_wrong_configuration_is_not_tried_again(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("learner", script="raise SystemExit(2)"), guard, print)
    await service.start()
    with pytest.raises(Unavailable, match="exit code 2 after 0 restarts"):
        await service.keep_running(**QUICK)


async def test_only_a_service_that_may_finish_finishes(make_spec: MakeSpec, guard: GuardProcess) -> None:
    service = Service(make_spec("learner", script="raise SystemExit(0)", may_finish=True), guard, print)
    await service.start()
    await service.keep_running(**QUICK)
    assert service.exit_code == 0


async def test_what_a_service_started_ends_with_it(make_spec: MakeSpec, guard: GuardProcess) -> None:
    spec = make_spec("verifier", "--child")
    service = Service(spec, guard, print)
    await service.start()
    await service.wait_ready(10)
    child = int(Path(f"{spec.url_file}.child").read_text())
    await service.stop(5)
    await wait_until_async(lambda: not is_running(child))


async def test_a_service_that_ignores_the_request_to_end_is_killed_in_bounded_time(
    make_spec: MakeSpec, guard: GuardProcess
) -> None:
    service = Service(make_spec("rollout-1", "--stubborn"), guard, print)
    await service.start()
    await service.wait_ready(10)
    began = time.monotonic()
    await service.stop(0.3)
    assert service.exit_code == -signal.SIGKILL
    assert time.monotonic() - began < 10


async def test_the_learner_ends_before_the_rollouts_and_redis_last(make_spec: MakeSpec, guard: GuardProcess) -> None:
    orders = [StopOrder.REDIS, StopOrder.VERIFIER, StopOrder.ROLLOUT, StopOrder.LEARNER]
    services = [Service(make_spec(order.name, stop_order=order), guard, print) for order in orders]
    for service in services:
        await service.start()
    for service in services:
        await service.wait_ready(10)
    await stop_in_order(services)
    ended = [float(Path(f"{service.spec.url_file}.ended").read_text()) for service in services]
    assert ended == sorted(ended, reverse=True)


LAUNCHER = """
import asyncio, sys
from pathlib import Path
from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.service_processes import StopOrder, Service, ServiceSpec, is_ready

async def main() -> None:
    folder = Path(sys.argv[1])
    guard = await GuardProcess.start(folder / "guard.jsonl")
    for name, flags in (("learner", ()), ("verifier", ("--child",)), ("redis", ("--stubborn",))):
        url_file = folder / f"{name}.url"
        command = (sys.executable, "-c", sys.argv[2], str(url_file), "{port}", *flags)
        order = StopOrder[name.upper()]
        spec = ServiceSpec(name, command, order, folder / f"{name}.jsonl", url_file, is_ready, grace_seconds=1.0)
        service = Service(spec, guard, print)
        await service.start()
        await service.wait_ready(20)
        (folder / f"{name}.pid").write_text(str(service.pid))
    (folder / "up").touch()
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_no_service_outlives_a_killed_launcher(tmp_path: Path, http_service: str) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path), http_service])
    await wait_until_async((tmp_path / "up").exists, 20)
    pids = [int((tmp_path / f"{name}.pid").read_text()) for name in ("learner", "verifier", "redis")]
    pids.append(int((tmp_path / "verifier.url.child").read_text()))
    launcher.kill()
    launcher.wait()
    await wait_until_async(lambda: not any(is_running(pid) for pid in pids), 15)
    assert (tmp_path / "learner.url.ended").exists(), "it was asked to end, not only killed"


def is_running(pid: int) -> bool:
    """Unlike `is_alive`, False for a process that ended and waits to be collected."""
    if not is_alive(pid):
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")
