"""Ends this process when it stands still: a call into a tracker's library cannot be cancelled."""

import os
import time
from collections.abc import Callable
from threading import Thread

CALL_SECONDS = 60.0
"""A tracker that has taken nothing for so long hangs."""
HUNG = 75
"""The exit code then."""


class Watchdog:
    """Calls `on_hang` and ends the process once its deadline has passed."""

    def __init__(self, on_hang: Callable[[], None], seconds: float = CALL_SECONDS) -> None:
        self._on_hang = on_hang
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._is_last = False
        Thread(target=self._watch, daemon=True).start()

    def postpone(self) -> None:
        """Something went through."""
        if not self._is_last:
            self._deadline = time.monotonic() + self._seconds

    def expect_end(self, seconds: float) -> None:
        """From now on nothing postpones the end."""
        self._is_last, self._deadline = True, time.monotonic() + seconds

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(0.1)
        self._on_hang()
        os._exit(HUNG)
