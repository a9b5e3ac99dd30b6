"""On a busy machine a worker's call takes longer, and its reply is the same."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.checks.check import Judgement
from services.verifier.checks.math.check import MathCheck, open_math_check
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, ReplyStatus, open_worker_pool
from shared.protocol.verdict import Outcome, VerdictItem

BUSY = "while True: pass"
# which end soon, in a second or so, and never; each needs a worker
SOON = [(rf"\mathbb{{R}}\setminus\{{{n}\}}", rf"(-\infty,{n % 3})\cup({n % 3},\infty)") for n in range(6)]
LATER = [(r"\mathbb{R}\setminus\{" + ",".join(map(str, range(12))) + r"\}",
          r"\cup".join([r"(-\infty,0)", *(f"({n},{n + 1})" for n in range(11)), r"(11,\infty)"]))]  # fmt: skip
NEVER = [(rf"\sum_{{n=1}}^{{{m}}} n", rf"\sum_{{n=1}}^{{10^9}} \frac{{1}}{{n^{m}+\sin(n)}}") for m in (3, 5)]


@contextmanager
def busy_processes(number: int) -> Iterator[list[int]]:
    """Processes that do nothing, all the time."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(number)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _judge(check: MathCheck, rows: list[tuple[str, str]]) -> dict[int, Judgement]:
    items = [
        VerdictItem(id=str(n), kind="math", response=rf"\boxed{{{answer}}}", answer_key={"gold": gold})
        for n, (gold, answer) in enumerate(rows)
    ]
    judgements: dict[int, Judgement] = {}
    await check.judge([check.prepare(item) for item in items], judgements.__setitem__)
    return judgements


async def test_a_call_may_run_as_long_as_on_an_idle_machine() -> None:
    settings = PoolSettings("test", "tests.verifier.worker_functions:work_for", 1, 512 << 20, 100)
    async with open_worker_pool(settings, VerifierMetrics(CollectorRegistry())) as pool:
        await pool.call((0,), 30)
        one_of_them = min(os.sched_getaffinity(0))
        with busy_processes(4) as busy:
            for pid in [*busy, *pool.pids]:
                os.sched_setaffinity(pid, {one_of_them})
            start = time.monotonic()
            reply = await pool.call((0.1,), 0.15)
            assert (reply.status, reply.value) == (ReplyStatus.ANSWERED, True)
            assert time.monotonic() - start > 0.15, "no processor was missing, so that nothing was shown"
            assert (await pool.call((60,), 0.25)).status is ReplyStatus.TIMED_OUT, "not starved: it was slow"


@pytest.mark.slow
async def test_endless_answers_wait_for_the_others() -> None:
    async with open_math_check(MathConfig(workers=1), VerifierMetrics(CollectorRegistry())) as check:
        ended = [judgement.outcome for judgement in (await _judge(check, NEVER[:1] + SOON)).values()]
    assert ended[-1] is Outcome.TIMED_OUT
    assert set(ended[:-1]) == {Outcome.RIGHT, Outcome.WRONG}


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_verdicts_of_hard_rows_do_not_depend_on_the_load() -> None:
    rows = SOON + LATER + NEVER
    async with open_math_check(MathConfig(workers=2), VerifierMetrics(CollectorRegistry())) as check:
        idle = await _judge(check, rows)
        with busy_processes(8):
            busy = await _judge(check, rows)
    assert {n: (found.reward, found.outcome) for n, found in idle.items()} == {
        n: (found.reward, found.outcome) for n, found in busy.items()
    }
    assert None not in {found.reward for found in busy.values()}
