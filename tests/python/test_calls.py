"""Waiting for coroutines from plain code, from a running loop, and under an interrupt."""

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from ibtpo.calls import LoopThread, can_take_signals


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """As at a terminal: what a shell starts in the background ignores SIGINT."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_a_call_has_the_coroutines_result_or_its_error() -> None:
    loop = LoopThread()
    assert loop.call(answer(3)) == 3
    with pytest.raises(asyncio.InvalidStateError):
        loop.call(_fail())
    loop.close()
    assert "ibtpo" not in [thread.name for thread in threading.enumerate()]


async def interrupt_the_main_thread() -> None:
    """As Ctrl-C does, once that thread waits."""
    main = threading.main_thread().ident
    while main is None or sys._current_frames()[main].f_code.co_name != "wait":
        await asyncio.sleep(0)
    signal.pthread_kill(main, signal.SIGINT)


async def _fail() -> None:
    raise asyncio.InvalidStateError


async def test_a_call_works_inside_a_running_loop() -> None:
    loop = LoopThread()
    assert loop.call(answer(4)) == 4
    assert not can_take_signals()
    loop.close()


async def test_an_interrupt_reaches_a_call_inside_a_running_loop() -> None:
    loop = LoopThread()

    async def work() -> None:
        await interrupt_the_main_thread()
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        loop.call(work())
    loop.close()


def test_the_main_thread_can_take_signals() -> None:
    assert can_take_signals()


def test_an_interrupt_waits_until_the_coroutine_has_cleaned_up() -> None:
    loop, ended = LoopThread(), []

    async def work() -> None:
        try:
            await interrupt_the_main_thread()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        loop.call(work())
    loop.close()
    assert ended == [True]


def test_a_call_with_an_interrupt_of_its_own_ends_as_that_says() -> None:
    loop, stop = LoopThread(), asyncio.Event()

    async def work() -> str:
        await interrupt_the_main_thread()
        await stop.wait()
        return "saved"

    assert loop.call(work(), stop.set) == "saved"
    loop.close()
