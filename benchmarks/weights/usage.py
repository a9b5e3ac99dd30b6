"""What a process has used, and what copying memory takes here and now."""

import resource
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

COPIED_BYTES = 1 << 28


class Usage(NamedTuple):
    """Since the process began; the memory since `reset_peak`."""

    cpu_seconds: float
    peak_bytes: int
    resident_bytes: int


def usage() -> Usage:
    used = resource.getrusage(resource.RUSAGE_SELF)
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, resident = (int(said[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
    return Usage(used.ru_utime + used.ru_stime, peak, resident)


def reset_peak() -> None:
    """Begins to measure the peak of the resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


class Copier:
    """Copies of memory: the unit of every rate. The buffers are written before."""

    def __init__(self) -> None:
        self._source = np.ones(COPIED_BYTES, np.uint8)
        self._target = self._source.copy()
        self.rates: list[float] = []
        """Bytes per CPU-second."""

    def copy(self) -> float:
        """One copy; its bytes per CPU-second of this thread, so that other work on the machine counts less."""
        started = time.thread_time()
        np.copyto(self._target, self._source)
        rate = COPIED_BYTES / (time.thread_time() - started)
        self.rates.append(rate)
        return rate
