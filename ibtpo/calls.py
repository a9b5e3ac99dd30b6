"""Waits for coroutines from code without an event loop of its own, and from code inside another, such as a notebook."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ibtpo", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], interrupt: Callable[[], object] | None = None) -> T:
        """Its result. An interrupt (Ctrl-C, or that of a notebook's kernel) calls `interrupt` in the loop, by default
        to cancel the coroutine, and is raised once this has ended; a second one calls it again."""
        task = asyncio.run_coroutine_threadsafe(_begin(coroutine), self._loop).result()
        future = asyncio.run_coroutine_threadsafe(_end(task), self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            self._end_early(future, interrupt or task.cancel)
            raise

    def _end_early(self, future: Any, interrupt: Callable[[], object]) -> None:
        while not future.done():
            self._loop.call_soon_threadsafe(interrupt)
            try:
                wait([future])
            except KeyboardInterrupt:
                continue

    def close(self) -> None:
        """Ends the loop and its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _begin(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    return asyncio.ensure_future(coroutine)


async def _end(task: "asyncio.Task[T]") -> T:
    return await task


def can_take_signals() -> bool:
    """Whether an event loop can be run here that handles signals: in the main thread, where none runs."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False
