"""Worker processes: hangs, memory, crashes, and kills from anywhere cost one answer its time and no other anything."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, ReplyStatus, WorkerPool, open_worker_pool

FUNCTIONS = "tests.verifier.worker_functions"


@asynccontextmanager
async def _pool(function: str, num_workers: int = 1, calls_per_worker: int = 100) -> AsyncIterator[WorkerPool]:
    settings = PoolSettings("test", f"{FUNCTIONS}:{function}", num_workers, 512 << 20, calls_per_worker)
    async with open_worker_pool(settings, VerifierMetrics(CollectorRegistry())) as pool:
        yield pool


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not any(map(_lives, pids))


async def test_questions_are_answered() -> None:
    async with _pool("double", num_workers=2) as pool:
        replies = await asyncio.gather(*(pool.call((n,), 10) for n in range(20)))
    assert [reply.value for reply in replies] == [2 * n for n in range(20)]


async def test_a_hanging_question_is_killed_at_its_deadline_and_the_next_is_answered() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        start = time.monotonic()
        reply = await pool.call(("hang",), 0.5)
        assert time.monotonic() - start < 1.5
        assert reply.status in (ReplyStatus.TIMED_OUT, ReplyStatus.STARVED)
        assert (await pool.call(("after",), 10)).value == "after"


async def test_a_question_that_had_no_processor_is_not_called_slow() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        reply = await pool.call(("sleep",), 0.3)
    assert reply.status is ReplyStatus.STARVED


async def test_memory_is_bounded() -> None:
    async with _pool("misbehave") as pool:
        assert (await pool.call(("eat",), 10)).status is ReplyStatus.MEMORY
        assert (await pool.call(("after",), 10)).value == "after"


async def test_what_a_function_raises_is_told() -> None:
    async with _pool("misbehave") as pool:
        reply = await pool.call(("raise",), 10)
        assert (reply.status, reply.value, reply.detail) == (ReplyStatus.ANSWERED, None, "ValueError: no such thing")
        assert (await pool.call(("unsayable",), 10)).detail.startswith("TypeError")


async def test_a_question_that_kills_every_worker_is_lost_and_only_it() -> None:
    async with _pool("misbehave") as pool:
        assert (await pool.call(("die",), 10)).status is ReplyStatus.LOST
        assert (await pool.call(("after",), 10)).value == "after"


async def test_workers_killed_from_outside_lose_no_answer() -> None:
    async with _pool("double", num_workers=2) as pool:
        await pool.call((0,), 30)
        asking = [asyncio.create_task(pool.call((n,), 10)) for n in range(200)]
        for _ in range(4):
            await asyncio.sleep(0.02)
            for pid in pool.pids[1:]:
                with suppress(ProcessLookupError):  # it may be gone since the last round
                    os.kill(pid, signal.SIGKILL)
        replies = await asyncio.gather(*asking)
    assert [reply.value for reply in replies] == [2 * n for n in range(200)]


async def test_a_killed_template_is_started_anew_and_leaves_no_orphan() -> None:
    async with _pool("double") as pool:
        await pool.call((0,), 30)
        before = pool.pids
        os.kill(before[0], signal.SIGKILL)
        assert await _gone(before)
        assert (await pool.call((21,), 10)).value == 42
        assert not set(before) & set(pool.pids)


async def test_workers_are_replaced_after_a_number_of_questions() -> None:
    async with _pool("double", calls_per_worker=2) as pool:
        await pool.call((0,), 30)
        before = set(pool.pids[1:])
        for n in range(8):
            assert (await pool.call((n,), 10)).value == 2 * n
        assert not before & set(pool.pids[1:])


async def test_a_cancelled_question_ends_its_worker() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        asking = asyncio.create_task(pool.call(("hang",), 60))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait((asking,))
        assert (await pool.call(("after",), 10)).value == "after"


async def test_nothing_is_left_when_the_pool_ends() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    async with _pool("misbehave", num_workers=2) as pool:
        await pool.call(("warm",), 30)
        hanging = asyncio.create_task(pool.call(("hang",), 0.3))
        await hanging
        async with asyncio.timeout(20):
            while pool.num_live < 3:
                await asyncio.sleep(0.02)
        pids = pool.pids
    assert await _gone(pids)
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_function_that_cannot_be_imported_is_tried_again_and_answers_nothing() -> None:
    async with _pool("no_such_function") as pool:
        asking = asyncio.create_task(pool.call((1,), 1))
        done, _ = await asyncio.wait((asking,), timeout=0.5)
        assert not done
        asking.cancel()
        await asyncio.wait((asking,))
