"""Worker processes: a hang, a crash or a kill costs one call its time, and no other call anything."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.verifier.metrics import VerifierMetrics, WorkerEnd
from services.verifier.workers import child_process
from services.verifier.workers.pool import PoolSettings, ReplyStatus, WorkerPool, open_worker_pool
from tests.verifier.sandbox.processes import count_descriptors, is_running
from tests.waiting import wait_until_async

FUNCTIONS = "tests.verifier.worker_functions"


def _is_hanging(pid: int) -> bool:
    """Whether a worker has used more processor time than starting takes: 50 ms."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) >= 5


@asynccontextmanager
async def _pool(function: str, num_workers: int = 1, calls_per_worker: int = 100) -> AsyncIterator[WorkerPool]:
    settings = PoolSettings("test", f"{FUNCTIONS}:{function}", num_workers, 512 << 20, calls_per_worker)
    async with open_worker_pool(settings, VerifierMetrics(CollectorRegistry())) as pool:
        yield pool


async def _wait_for_end(pids: list[int]) -> None:
    await wait_until_async(lambda: not any(map(is_running, pids)), what=f"{pids} have ended")


async def test_calls_are_answered() -> None:
    async with _pool("double", num_workers=2) as pool:
        replies = await asyncio.gather(*(pool.call((n,), 10) for n in range(20)))
    assert [reply.value for reply in replies] == [2 * n for n in range(20)]


async def test_a_hanging_call_is_killed_at_its_deadline_and_the_next_is_answered() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        start = time.monotonic()
        reply = await pool.call(("hang",), 0.5)
        assert time.monotonic() - start < 10
        assert reply.status in (ReplyStatus.TIMED_OUT, ReplyStatus.STARVED)
        assert (await pool.call(("after",), 10)).value == "after"


async def test_a_call_that_had_no_processor_is_not_called_slow() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        reply = await pool.call(("sleep",), 0.3)
    assert reply.status is ReplyStatus.STARVED


async def test_memory_is_bounded() -> None:
    async with _pool("misbehave") as pool:
        assert (await pool.call(("eat",), 10)).status is ReplyStatus.MEMORY
        assert (await pool.call(("after",), 10)).value == "after"


async def test_what_a_function_raises_is_reported() -> None:
    async with _pool("misbehave") as pool:
        reply = await pool.call(("raise",), 10)
        assert (reply.status, reply.value, reply.detail) == (ReplyStatus.ANSWERED, None, "ValueError: no such thing")
        assert (await pool.call(("no_json",), 10)).detail.startswith("TypeError")


async def test_a_call_that_kills_every_worker_is_lost_and_only_it() -> None:
    async with _pool("misbehave") as pool:
        assert (await pool.call(("die",), 10)).status is ReplyStatus.LOST
        assert (await pool.call(("after",), 10)).value == "after"


async def test_workers_killed_from_outside_lose_no_answer() -> None:
    async with _pool("double", num_workers=2) as pool:
        await pool.call((0,), 30)
        calls = [asyncio.create_task(pool.call((n,), 10)) for n in range(200)]
        for num_answered in (20, 60, 100, 140):
            await wait_until_async(lambda: sum(call.done() for call in calls) >= num_answered)  # noqa: B023
            for pid in pool.pids[1:]:
                with suppress(ProcessLookupError):  # it may have ended already
                    os.kill(pid, signal.SIGKILL)
        replies = await asyncio.gather(*calls)
    assert [reply.value for reply in replies] == [2 * n for n in range(200)]


async def test_a_killed_template_is_started_again_and_leaves_no_orphan() -> None:
    async with _pool("double") as pool:
        await pool.call((0,), 30)
        before = pool.pids
        os.kill(before[0], signal.SIGKILL)
        await _wait_for_end(before)
        assert (await pool.call((21,), 10)).value == 42
        assert not set(before) & set(pool.pids)


async def test_workers_are_replaced_after_a_number_of_calls() -> None:
    async with _pool("double", calls_per_worker=2) as pool:
        await pool.call((0,), 30)
        before = set(pool.pids[1:])
        for n in range(8):
            assert (await pool.call((n,), 10)).value == 2 * n
        assert not before & set(pool.pids[1:])


async def test_a_cancelled_call_ends_its_worker() -> None:
    async with _pool("misbehave") as pool:
        await pool.call(("warm",), 30)
        before = set(pool.pids)
        call = asyncio.create_task(pool.call(("hang",), 60))
        await wait_until_async(lambda: any(map(_is_hanging, pool.pids[1:])), what="a worker hangs")
        call.cancel()
        await asyncio.wait((call,))
        assert (await pool.call(("after",), 10)).value == "after"
        assert before - set(pool.pids), "the worker that hung was replaced"


async def test_nothing_is_left_when_the_pool_ends() -> None:
    num_descriptors = count_descriptors()
    async with _pool("misbehave", num_workers=2) as pool:
        await pool.call(("warm",), 30)
        await pool.call(("hang",), 0.3)
        await wait_until_async(lambda: pool.num_live == 3)
        pids = pool.pids
    await _wait_for_end(pids)
    assert count_descriptors() == num_descriptors


async def test_a_function_that_cannot_be_imported_is_tried_again_and_answers_nothing() -> None:
    async with _pool("no_such_function") as pool:
        call = asyncio.create_task(pool.call((1,), 1))
        seen: set[int] = set()

        def has_restarted() -> bool:
            seen.update(pool.pids)
            return len(seen) > 1

        await wait_until_async(has_restarted)
        assert not call.done()
        call.cancel()
        await asyncio.wait((call,))


async def test_a_worker_has_the_import_path_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBTPO_SECRET", "s3cret")
    async with _pool("read_environment") as pool:
        environment = (await pool.call((), 30)).value
    assert environment.keys() <= {"PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}


async def test_calls_beyond_the_workers_wait_and_none_is_timed_while_it_waits() -> None:
    async with _pool("nap") as pool:
        await pool.call((0.0,), 30)
        replies = await asyncio.gather(*(pool.call((0.2,), 0.5) for _ in range(5)))
    assert [reply.status for reply in replies] == [ReplyStatus.ANSWERED] * 5


async def test_the_ends_of_workers_are_counted_by_their_reason() -> None:
    metrics = VerifierMetrics(CollectorRegistry())
    settings = PoolSettings("test", f"{FUNCTIONS}:misbehave", 1, 512 << 20, 100)

    def kills(reason: WorkerEnd) -> float | None:
        return metrics.registry.get_sample_value(
            "ibtpo_verifier_worker_kills_total", {"kind": "test", "reason": reason.value}
        )

    async with open_worker_pool(settings, metrics) as pool:
        assert {kills(reason) for reason in WorkerEnd} == {0.0}, "shown before the first one"
        await pool.call(("warm",), 30)
        await pool.call(("hang",), 0.3)
        await pool.call(("eat",), 10)
        assert (kills(WorkerEnd.TIMED_OUT), kills(WorkerEnd.MEMORY)) == (1.0, 1.0)
        await wait_until_async(lambda: pool.num_live == 2, what="both are replaced")
        before = kills(WorkerEnd.DIED) or 0.0
        os.kill(pool.pids[-1], signal.SIGKILL)
        await wait_until_async(lambda: kills(WorkerEnd.DIED) == before + 1, what="the idle worker's end is noticed")


def test_another_system_than_linux_is_not_asked_for_what_only_linux_has(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr("ctypes.CDLL", lambda name, **_: asked.append(name))
    monkeypatch.setattr("sys.platform", "darwin")
    child_process.die_with_parent()
    assert asked == []
