"""The sandbox when its fork-server is killed, stuck, or a caller gives up: nothing lost, nothing left."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.judge_script import JudgeScript
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, Role
from shared.errors import Unavailable

DOUBLE = Program(b"import time\nx = int(input())\ntime.sleep(0.02)\nprint(x * 2)", stdin=b"21\n")
ENDLESS = Program(b"while True: pass")


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _serving_pid(sandbox: JailSandbox) -> int:
    """The process that forks: the one started, or its first child when there are namespaces."""
    pid = sandbox.fork_server_pid
    assert pid is not None
    return pid if sandbox.layers()["namespaces"] != "on" else _descendants(pid)[0]


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _settled(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not is_so() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return is_so()


async def test_a_killed_fork_server_loses_no_job() -> None:
    chance = random.Random(1)
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        done = asyncio.Event()

        async def kill_it_again_and_again() -> None:
            while not done.is_set():
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                if sandbox.fork_server_pid is not None:
                    victim = chance.choice([sandbox.fork_server_pid, _serving_pid(sandbox)])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)

        killing = asyncio.create_task(kill_it_again_and_again())
        runs = await asyncio.gather(*(sandbox.run(DOUBLE, Limits()) for _ in range(60)))
        done.set()
        await killing
        assert sandbox.num_starts > 2
        assert all(run.end_reason in (EndReason.EXITED, EndReason.LOST) for run in runs)
        right = [run for run in runs if run.stdout == b"42\n"]
        assert len(right) + sum(run.end_reason is EndReason.LOST for run in runs) == len(runs)
        assert len(right) > 40


async def test_children_die_with_their_fork_server() -> None:
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        running = asyncio.create_task(sandbox.run(ENDLESS, Limits(wall_seconds=30)))
        await asyncio.sleep(0.2)
        server = sandbox.fork_server_pid
        assert server is not None
        family = _descendants(server)
        os.kill(server, signal.SIGKILL)
        assert await _settled(lambda: not any(_is_running(pid) for pid in family))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_a_stuck_fork_server_is_replaced() -> None:
    async with open_jail(JailOptions(concurrency=1), answer_seconds=2.0) as sandbox:
        os.kill(_serving_pid(sandbox), signal.SIGSTOP)
        run = await sandbox.run(DOUBLE, Limits())
        assert run.stdout == b"42\n"
        assert sandbox.num_starts == 2


async def test_a_cancelled_run_is_gone_when_it_returns() -> None:
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        serving = _serving_pid(sandbox)
        for wait in (0.0, 0.001, 0.003, 0.01, 0.1):
            running = [asyncio.create_task(sandbox.run(ENDLESS, Limits())) for _ in range(3)]
            await asyncio.sleep(wait)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            assert _descendants(serving) == []
        assert (await sandbox.run(DOUBLE, Limits())).stdout == b"42\n"
        assert sandbox.num_starts == 1


async def test_a_cancelled_pair_is_gone_when_it_returns() -> None:
    solution = Program(b"def f():\n    while True: pass", Role.SOLUTION)
    judge = Program(JudgeScript("", ("assert f()",), "f", calls_check=False, is_partial=False).pack(), Role.JUDGE)
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        serving = _serving_pid(sandbox)
        for wait in (0.0, 0.002, 0.1):
            running = asyncio.create_task(sandbox.run_pair(solution, judge, Limits()))
            await asyncio.sleep(wait)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert _descendants(serving) == []


async def test_nothing_is_left_after_many_runs() -> None:
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        await sandbox.run(DOUBLE, Limits())
        serving = _serving_pid(sandbox)
        before = _open_descriptors(), len(os.listdir(f"/proc/{serving}/fd"))
        hostile = Program(
            b"import os, threading, time\nfor _ in range(8):\n"
            b"    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nos._exit(3)"
        )
        programs = [DOUBLE, hostile, Program(b"1/0"), Program(b"import ctypes; ctypes.string_at(0)")]
        await asyncio.gather(*(sandbox.run(program, Limits()) for program in programs * 20))
        gc.collect()
        assert (_open_descriptors(), len(os.listdir(f"/proc/{serving}/fd"))) == before
        assert _descendants(serving) == []


async def test_after_closing_nothing_runs_and_nothing_is_open() -> None:
    gc.collect()
    before = _open_descriptors()
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        server = sandbox.fork_server_pid
        running = asyncio.create_task(sandbox.run(ENDLESS, Limits()))
        await asyncio.sleep(0.1)
        sandbox.close()
        assert (await running).end_reason is EndReason.LOST
    assert server is not None
    assert not _is_running(server)
    assert _open_descriptors() == before


async def test_at_most_as_many_run_at_once_as_there_are_places() -> None:
    sleeping = Program(b"import time\ntime.sleep(0.3)")
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        serving = _serving_pid(sandbox)
        running = [asyncio.create_task(sandbox.run(sleeping, Limits())) for _ in range(6)]
        counts = []
        while not all(task.done() for task in running):
            counts.append(len(_descendants(serving)))
            await asyncio.sleep(0.02)
        assert max(counts) == 2
        # Waiting for a place has cost nobody any of its time.
        assert all(task.result().seconds < 0.6 for task in running)


async def test_an_interpreter_that_is_not_there_is_a_refusal() -> None:
    async with open_jail(JailOptions(concurrency=1), interpreter="/bin/false") as sandbox:
        assert sandbox.refusal is not None
        assert "did not start" in sandbox.refusal
        with pytest.raises(Unavailable, match="code cannot be run here"):
            await sandbox.run(DOUBLE, Limits())


async def test_a_program_that_gets_no_processor_is_forgiven_the_wait() -> None:
    working = Program(b"import time\nwhile time.process_time() < 0.4: pass\nprint(42)")
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        # All on one processor, with much company.
        os.sched_setaffinity(_serving_pid(sandbox), {0})
        company = [
            subprocess.Popen([sys.executable, "-c", "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"])
            for _ in range(6)
        ]
        try:
            forgiven = await sandbox.run(working, Limits(wall_seconds=0.8, starved_seconds=20.0))
            exact = await sandbox.run(working, Limits(wall_seconds=0.8, starved_seconds=0.0))
            sleeping = await sandbox.run(
                Program(b"import time\ntime.sleep(60)"), Limits(wall_seconds=0.8, starved_seconds=20.0)
            )
        finally:
            for process in company:
                process.kill()
                process.wait()
    assert forgiven.stdout == b"42\n"
    assert forgiven.seconds > 0.8
    assert exact.end_reason is EndReason.TIMED_OUT
    assert sleeping.end_reason is EndReason.TIMED_OUT
    assert sleeping.seconds < 3.0
