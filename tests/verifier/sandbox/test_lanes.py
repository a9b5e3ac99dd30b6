"""What takes long leaves the ordinary slots to others: it goes on in a lane where few compute at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun, Role
from tests.verifier.sandbox.processes import find_descendants, find_serving_pid
from tests.verifier.sandbox.programs import judge_program
from tests.waiting import wait_until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOUBLE = Program(b"print(int(input()) * 2)", stdin=b"21\n")
LOOP = Program(b"while True: pass")
LONG = Limits(wall_seconds=60.0, cpu_seconds=60.0)
SHORT = Limits(wall_seconds=0.4)
# Each kind of waiting, with and without a processor.
ENDLESS = {
    "compute": "while True: pass",
    "sleep": "import time\ntime.sleep(10**6)",
    "sleep and compute": "import time\nwhile True: time.sleep(0.01)",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "own pipe": "import os\nos.read(os.pipe()[0], 1)",
    "thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()",
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def jail() -> AsyncIterator[JailSandbox]:
    async with open_jail(JailOptions(concurrency=1, slow_runs=8)) as sandbox:
        assert sandbox.refusal is None
        yield sandbox


def _start(jail: JailSandbox, program: Program, count: int, limits: Limits = LONG) -> list[asyncio.Task[ProgramRun]]:
    return [asyncio.create_task(jail.run(program, limits)) for _ in range(count)]


async def _cancel(running: list[asyncio.Task[ProgramRun]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _count_stopped(jail: JailSandbox) -> int:
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in _children(jail)]
    return states.count("T")


def _children(jail: JailSandbox) -> list[int]:
    return find_descendants(find_serving_pid(jail))


@pytest.mark.parametrize("name", ENDLESS)
async def test_others_run_while_one_does_not_end(jail: JailSandbox, name: str) -> None:
    endless = _start(jail, Program(ENDLESS[name].encode()), 3)
    runs = await asyncio.gather(*_start(jail, DOUBLE, 10))
    assert [run.stdout for run in runs] == [b"42\n"] * 10
    assert not any(task.done() for task in endless)
    await _cancel(endless)
    assert not _children(jail)


async def test_a_pair_that_does_not_end_lets_others_run(jail: JailSandbox) -> None:
    solution = Program(b"def f():\n    while True: pass", Role.SOLUTION)
    endless = asyncio.create_task(jail.run_pair(solution, judge_program("assert f()"), LONG))
    assert (await jail.run(DOUBLE, LONG)).stdout == b"42\n"
    assert not endless.done()
    endless.cancel()
    await asyncio.gather(endless, return_exceptions=True)
    assert not _children(jail)


async def test_of_those_that_compute_one_does_and_the_others_are_held(jail: JailSandbox) -> None:
    loops = _start(jail, LOOP, 4)
    await wait_until_async(lambda: _count_stopped(jail) == 3)
    await _cancel(loops)
    assert not _children(jail)


async def test_those_that_wait_are_not_held(jail: JailSandbox) -> None:
    sleepers = _start(jail, Program(b"import time\ntime.sleep(10**6)"), 4)
    await wait_until_async(lambda: len(_children(jail)) == 4)
    assert _count_stopped(jail) == 0
    await _cancel(sleepers)


async def test_the_time_for_which_a_run_is_held_is_not_its_own(jail: JailSandbox) -> None:
    runs = await asyncio.gather(*_start(jail, LOOP, 4, SHORT))
    assert [run.end_reason for run in runs] == [EndReason.TIMED_OUT] * 4
    assert all(run.cpu_seconds > 0.2 and run.seconds < 1.0 for run in runs), runs


async def test_a_run_that_takes_longer_than_most_is_finished(jail: JailSandbox) -> None:
    program = Program(b"import time\nwhile time.process_time() < 0.3: pass\nprint(42)")
    runs = await asyncio.gather(*_start(jail, program, 4))
    assert [run.stdout for run in runs] == [b"42\n"] * 4


async def test_what_has_computed_least_goes_first(jail: JailSandbox) -> None:
    loops = _start(jail, LOOP, 3)
    await wait_until_async(lambda: _count_stopped(jail) == 2)
    program = Program(b"import time\nwhile time.process_time() < 0.08: pass\nprint(42)")
    assert (await jail.run(program, LONG)).stdout == b"42\n"
    assert not any(loop.done() for loop in loops)
    await _cancel(loops)


async def test_a_full_lane_leaves_what_is_slow_in_its_slot() -> None:
    async with open_jail(JailOptions(concurrency=1, slow_runs=2)) as jail:
        loops = _start(jail, LOOP, 5, SHORT)
        most = 0

        def count() -> bool:
            nonlocal most
            most = max(most, len(_children(jail)))
            return all(task.done() for task in loops)

        await wait_until_async(count)
        assert most == 3
        assert {task.result().end_reason for task in loops} == {EndReason.TIMED_OUT}
