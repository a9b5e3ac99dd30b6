"""The sandbox without a jail: limits, pairs and cancelling work as in the jail; isolation is what it lacks."""

import asyncio
import gc
import os

import pytest

from services.verifier.sandbox.judge_script import JudgeReport
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, Role
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox
from tests.verifier.sandbox.processes import count_descriptors, find_descendants
from tests.verifier.sandbox.programs import judge_program
from tests.waiting import wait_until_async

ENDLESS = Program(b"while True: pass")


async def test_a_program_runs_as_in_the_jail() -> None:
    program = Program(b"import sys\nprint(int(input()) * 2, sys.argv[1:])\nsys.exit('bad')", stdin=b"21\n", argv=("a",))
    run = await UnsafeSandbox(1).run(program, Limits())
    assert (run.end_reason, run.exit_code) == (EndReason.EXITED, 1)
    assert (run.stdout, run.stderr) == (b"42 ['a']\n", b"bad\n")
    assert 0 < run.cpu_seconds < run.seconds + 0.1  # two clocks
    assert run.peak_memory_bytes > 1 << 20


async def test_it_says_that_it_isolates_nothing() -> None:
    sandbox = UnsafeSandbox(3)
    assert (sandbox.is_isolated, sandbox.refusal, sandbox.concurrency) == (False, None, 3)
    assert sandbox.layers == {"isolation": "none: switched off by the operator"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("while True: pass", EndReason.TIMED_OUT),
        ("x = b'x' * (1 << 30)", EndReason.OUT_OF_MEMORY),
        ("while True: print('x' * 100000)", EndReason.OUTPUT_LIMIT),
        ("import ctypes\nctypes.string_at(0)", EndReason.CRASHED),
    ],
)
async def test_limits_hold_without_a_jail(source: str, reason: EndReason) -> None:
    limits = Limits(wall_seconds=2.0, memory_bytes=128 << 20, output_bytes=1 << 20)
    assert (await UnsafeSandbox(1).run(Program(source.encode()), limits)).end_reason is reason


async def test_a_judge_calls_its_solution() -> None:
    solution = Program(b"def add(a, b):\n    return a + b", Role.SOLUTION)
    _, judge_run = await UnsafeSandbox(1).run_pair(solution, judge_program("assert add(1, 2) == 3"), Limits())
    assert JudgeReport.unpack(judge_run.stdout) == JudgeReport(1, 1, 1, is_done=True)


async def test_a_solution_is_stopped_when_its_judge_ends() -> None:
    solution = Program(b"while True: pass", Role.SOLUTION)
    solution_run, judge_run = await UnsafeSandbox(1).run_pair(solution, judge_program("assert 1"), Limits())
    assert (solution_run.end_reason, judge_run.is_clean) == (EndReason.STOPPED, True)


async def test_a_cancelled_run_leaves_no_process_and_no_descriptor() -> None:
    sandbox = UnsafeSandbox(2)
    gc.collect()
    before = count_descriptors(), find_descendants()
    solution = Program(b"while True: pass", Role.SOLUTION)
    running = [
        asyncio.create_task(sandbox.run(ENDLESS, Limits())),
        asyncio.create_task(sandbox.run_pair(solution, judge_program("assert add()"), Limits())),
    ]
    await wait_until_async(lambda: len(find_descendants()) == len(before[1]) + 3)
    for task in running:
        task.cancel()
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
    assert (count_descriptors(), find_descendants()) == before


async def test_a_program_sees_no_environment_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBTPO_SECRET", "x")
    run = await UnsafeSandbox(1).run(Program(b"import os\nprint(dict(os.environ))"), Limits())
    assert os.environ["IBTPO_SECRET"] == "x"
    assert run.stdout == b"{}\n"
