"""Background loops survive failures and end when asked to."""

import asyncio
import logging

import pytest

from shared.runtime.loops import Backoff, Periodic, cancel
from tests.waiting import wait_until_async

FAST = Backoff(0.001, 0.004)


async def test_failures_are_logged_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stop, turns = asyncio.Event(), 0

    async def step() -> None:
        nonlocal turns
        turns += 1
        if turns <= 3:
            raise RuntimeError(f"turn {turns}")
        if turns == 6:
            stop.set()

    loop = Periodic("feed", step, backoff=FAST, stop=stop)
    await asyncio.wait_for(loop.run(), 5)
    assert turns == 6
    assert loop.num_failures_in_row == 0
    assert [record.message for record in caplog.records] == ["loop_failed"] * 3 + ["loop_recovered"]
    # a long outage tells its traceback once
    assert [bool(record.exc_info) for record in caplog.records][:3].count(True) == 1


async def test_a_loop_ends_when_it_is_cancelled() -> None:
    started, never = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        started.set()
        await never.wait()

    task = Periodic("idle", step).start()
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_pause_is_left_at_once_when_the_end_is_announced() -> None:
    stop = asyncio.Event()

    async def step() -> None:
        asyncio.get_running_loop().call_later(0.02, stop.set)

    await asyncio.wait_for(Periodic("slow", step, every_seconds=60, stop=stop).run(), 5)


async def test_a_step_that_never_waits_lets_others_run() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1

    task = Periodic("busy", step).start()
    await wait_until_async(lambda: steps > 3, 5)
    await cancel([task])


def test_pauses_grow_to_a_bound() -> None:
    backoff = Backoff(0.1, 5.0)
    assert [backoff.pause_seconds(n) for n in (1, 2, 3, 7, 1000)] == [0.1, 0.2, 0.4, 5.0, 5.0]
    with pytest.raises(ValueError, match="first_seconds"):
        Backoff(2.0, 1.0)
