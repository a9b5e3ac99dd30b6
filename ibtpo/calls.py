"""Waits for coroutines from code without an event loop of its own, and from code inside another, such as a notebook."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.2
"""How long to wait at a time: a signal that comes just before the wait does not end it."""


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ibtpo", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], interrupt: Callable[[], object] | None = None) -> T:
        """Its result. An interrupt (Ctrl-C, or that of a notebook's kernel) cancels the coroutine, and is raised once
        this has ended; with `interrupt`, each calls that in the loop instead, and the coroutine ends as it does."""
        with _interrupts_are_raised():
            return self._wait(coroutine, interrupt)

    def _wait(self, coroutine: Coroutine[Any, Any, T], interrupt: Callable[[], object] | None) -> T:
        tasks: list[asyncio.Task[T]] = []
        future = asyncio.run_coroutine_threadsafe(_hold(coroutine, tasks), self._loop)
        is_interrupted = False
        while True:
            try:
                if not wait([future], _LOOK_SECONDS).done:
                    continue
            except KeyboardInterrupt:
                is_interrupted = True
                self._loop.call_soon_threadsafe(interrupt or partial(self._cancel, tasks))
                continue
            if is_interrupted and interrupt is None:
                raise KeyboardInterrupt
            return future.result()

    def _cancel(self, tasks: "list[asyncio.Task[T]]") -> None:
        if tasks:
            tasks[0].cancel()
        else:  # it begins in this round of the loop
            self._loop.call_soon(self._cancel, tasks)

    def close(self) -> None:
        """Ends the loop and its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _hold(coroutine: Coroutine[Any, Any, T], tasks: "list[asyncio.Task[T]]") -> T:
    """Runs it as a task of its own, which can be cancelled and waited for."""
    tasks.append(asyncio.ensure_future(coroutine))
    return await tasks[0]


@contextmanager
def _interrupts_are_raised() -> Iterator[None]:
    """In the main thread SIGINT raises KeyboardInterrupt, also below `asyncio.run`, which would wait for the block."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # no signal comes here, or it is ignored
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def can_take_signals() -> bool:
    """Whether an event loop can be run here that handles signals: in the main thread, where none runs."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False
