"""The sandbox when its fork-server is killed or stuck, or a caller gives up: nothing is lost, nothing left."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, Role
from shared.errors import Unavailable
from tests.verifier.sandbox.processes import count_descriptors, find_descendants, find_serving_pid, is_running
from tests.verifier.sandbox.programs import judge_program
from tests.waiting import wait_until_async

pytestmark = pytest.mark.drill

DOUBLE = Program(b"import time\nx = int(input())\ntime.sleep(0.02)\nprint(x * 2)", stdin=b"21\n")
ENDLESS = Program(b"while True: pass")


async def _wait_for_children(sandbox: JailSandbox, count: int = 1) -> int:
    """Waits until so many programs run; returns the pid of the process that forked them."""
    serving = find_serving_pid(sandbox)
    await wait_until_async(lambda: len(find_descendants(serving)) >= count)
    return serving


async def test_a_killed_fork_server_loses_no_job() -> None:
    # A run is started again three times, so that not even one that meets every kill is lost. On a busy machine
    # a fork-server may need longer than usual: this test alone ends one.
    async with open_jail(JailOptions(concurrency=2), answer_seconds=60.0) as sandbox:
        running = [asyncio.create_task(sandbox.run(DOUBLE, Limits())) for _ in range(60)]
        for num_kills, is_first_process in enumerate((True, False, True)):
            # A new fork-server is ready, and ten more runs are done: the kill comes between runs.
            await wait_until_async(
                lambda num_kills=num_kills: (
                    sandbox.num_starts == num_kills + 1 and sum(task.done() for task in running) >= 10 * (num_kills + 1)
                ),
                seconds=60.0,
            )
            serving = await _wait_for_children(sandbox)
            victim = sandbox.fork_server_pid if is_first_process else serving
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
        runs = await asyncio.gather(*running)
        assert [run.stdout for run in runs] == [b"42\n"] * len(runs)
        assert sandbox.num_starts == 4


async def test_a_fork_server_killed_again_and_again_ends_in_a_lost_run() -> None:
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        running = asyncio.create_task(sandbox.run(ENDLESS, Limits()))
        for num_starts in range(1, 5):
            await wait_until_async(lambda num_starts=num_starts: sandbox.num_starts == num_starts)
            os.kill(await _wait_for_children(sandbox), signal.SIGKILL)
        run = await running
        assert run.end_reason is EndReason.LOST
        assert run.stderr.startswith(b"the fork-server")
        assert (await sandbox.run(DOUBLE, Limits())).stdout == b"42\n"


async def test_children_die_with_their_fork_server() -> None:
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        running = asyncio.create_task(sandbox.run(ENDLESS, Limits(wall_seconds=30)))
        await _wait_for_children(sandbox)
        server = sandbox.fork_server_pid
        assert server is not None
        family = find_descendants(server)
        os.kill(server, signal.SIGKILL)
        await wait_until_async(lambda: not any(map(is_running, family)))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_stuck_fork_server_is_replaced() -> None:
    async with open_jail(JailOptions(concurrency=1), answer_seconds=2.0) as sandbox:
        os.kill(find_serving_pid(sandbox), signal.SIGSTOP)
        run = await sandbox.run(DOUBLE, Limits())
        assert run.stdout == b"42\n"
        assert sandbox.num_starts == 2


# How long a run has gone on when it is cancelled: after so many turns of the event loop, or (None) when it runs.
MOMENTS = [0, 1, 2, 3, 5, 10, 30, None]


@pytest.mark.parametrize("num_turns", MOMENTS)
async def test_a_cancelled_run_is_gone_when_it_returns(num_turns: int | None) -> None:
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        serving = find_serving_pid(sandbox)
        running = [asyncio.create_task(sandbox.run(ENDLESS, Limits())) for _ in range(3)]
        await _reach(sandbox, num_turns)
        for task in running:
            task.cancel()
        ends = await asyncio.gather(*running, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 3
        assert find_descendants(serving) == []
        assert (await sandbox.run(DOUBLE, Limits())).stdout == b"42\n"
        assert sandbox.num_starts == 1


@pytest.mark.parametrize("num_turns", MOMENTS)
async def test_a_cancelled_pair_is_gone_when_it_returns(num_turns: int | None) -> None:
    solution = Program(b"def f():\n    while True: pass", Role.SOLUTION)
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        serving = find_serving_pid(sandbox)
        running = asyncio.create_task(sandbox.run_pair(solution, judge_program("assert f()"), Limits()))
        await _reach(sandbox, num_turns)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert find_descendants(serving) == []


async def _reach(sandbox: JailSandbox, num_turns: int | None) -> None:
    if num_turns is None:
        await _wait_for_children(sandbox, count=2)
    for _ in range(num_turns or 0):
        await asyncio.sleep(0)


async def test_nothing_is_left_after_many_runs() -> None:
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        await sandbox.run(DOUBLE, Limits())
        serving = find_serving_pid(sandbox)
        before = count_descriptors(), count_descriptors(serving)
        hostile = Program(
            b"import os, threading, time\nfor _ in range(8):\n"
            b"    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nos._exit(3)"
        )
        programs = [DOUBLE, hostile, Program(b"1/0"), Program(b"import ctypes; ctypes.string_at(0)")]
        await asyncio.gather(*(sandbox.run(program, Limits()) for program in programs * 20))
        gc.collect()
        assert (count_descriptors(), count_descriptors(serving)) == before
        assert find_descendants(serving) == []


async def test_after_closing_nothing_runs_and_nothing_is_open() -> None:
    gc.collect()
    before = count_descriptors()
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        server = sandbox.fork_server_pid
        running = asyncio.create_task(sandbox.run(ENDLESS, Limits()))
        await _wait_for_children(sandbox)
        sandbox.close()
        assert (await running).end_reason is EndReason.LOST
    assert server is not None
    assert not is_running(server)
    assert count_descriptors() == before


async def test_no_more_run_at_once_than_the_concurrency_allows() -> None:
    program = Program(b"import time\nstart = time.monotonic()\ntime.sleep(1)\nprint(start, time.monotonic())")
    async with open_jail(JailOptions(concurrency=2, slow_runs=0)) as sandbox:
        runs = await asyncio.gather(*(sandbox.run(program, Limits()) for _ in range(6)))
    spans = [tuple(map(float, run.stdout.split())) for run in runs]
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == 2
    # Waiting to start has cost nobody any of its time.
    assert all(run.seconds < 3.0 for run in runs), "six in a row by two take that long for the last"


async def test_an_interpreter_that_is_not_there_is_a_refusal() -> None:
    async with open_jail(JailOptions(concurrency=1), interpreter="/bin/false") as sandbox:
        assert sandbox.refusal is not None
        assert "did not start" in sandbox.refusal
        with pytest.raises(Unavailable, match="code cannot be run here"):
            await sandbox.run(DOUBLE, Limits())


def _write_interpreter(path: Path, code: str) -> str:
    """An interpreter that runs `code`, with the real one's path and arguments in `arguments`."""
    path.write_text(f"#!{sys.executable}\nimport os, sys\narguments = [sys.executable, *sys.argv[1:]]\n{code}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_fork_server_that_is_late_is_a_refusal(tmp_path: Path) -> None:
    interpreter = _write_interpreter(tmp_path / "python", "import signal; signal.pause()")
    before = set(find_descendants())
    async with open_jail(JailOptions(), interpreter=interpreter, answer_seconds=0.3) as sandbox:
        assert sandbox.refusal is not None
        assert "the fork-server was not ready after 0.3 s" in sandbox.refusal
    await wait_until_async(lambda: not [pid for pid in find_descendants() if pid not in before and is_running(pid)])


async def test_a_restarted_fork_server_with_fewer_layers_runs_nothing(tmp_path: Path) -> None:
    lost_layer = tmp_path / "lost_layer"
    interpreter = _write_interpreter(
        tmp_path / "python",
        f"if os.path.exists({str(lost_layer)!r}):\n"
        "    arguments[-1] = arguments[-1].replace('\"uses_namespaces\": true', '\"uses_namespaces\": false')\n"
        "os.execv(arguments[0], arguments)",
    )
    async with open_jail(JailOptions(concurrency=1), interpreter=interpreter) as sandbox:
        assert (await sandbox.run(DOUBLE, Limits())).stdout == b"42\n"
        lost_layer.touch()
        assert sandbox.fork_server_pid is not None
        os.kill(sandbox.fork_server_pid, signal.SIGKILL)
        run = await sandbox.run(DOUBLE, Limits())
    assert run.end_reason is EndReason.LOST
    assert run.stderr.startswith(b"a restarted fork-server has other layers")


async def test_a_program_that_gets_no_processor_is_forgiven_the_wait() -> None:
    working = Program(b"import time\nwhile time.process_time() < 0.4: pass\nprint(42)")
    sleeping = Program(b"import time\ntime.sleep(60)")
    limits = Limits(wall_seconds=1.5)
    async with open_jail(JailOptions(concurrency=1)) as sandbox:
        # All on one processor, with much company.
        os.sched_setaffinity(find_serving_pid(sandbox), {0})
        company = [
            subprocess.Popen([sys.executable, "-c", "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"])
            for _ in range(8)
        ]
        try:
            started = time.monotonic()
            forgiven = await sandbox.run(working, limits)
            elapsed = time.monotonic() - started
            slept = await sandbox.run(sleeping, limits)
        finally:
            for process in company:
                process.kill()
                process.wait()
    assert forgiven.stdout == b"42\n"
    assert forgiven.seconds <= limits.wall_seconds < elapsed
    assert slept.end_reason is EndReason.TIMED_OUT
    assert slept.seconds < 5.0
