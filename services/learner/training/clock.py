"""How long each part of a training step takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch


class Part(StrEnum):
    CREDIT = "credit"
    """Trajectories and advantages of the trees."""
    PACK = "pack"
    """Micro-batches of them, and their way to the device."""
    FORWARD = "forward"
    """Those of the reference and of the old policy, too."""
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


class StepClock:
    """Seconds by part. Work on a CUDA device is measured between events on it, so that measuring waits for nothing:
    parts of the host and of the device may then overlap."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys(Part, 0.0)
        self._events: list[tuple[Part, torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def elapsed_seconds(self) -> float:
        """Since it was made, whatever was measured."""
        return time.perf_counter() - self._started

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Adds the time within to the part's."""
        if self._on_cuda and part not in (Part.CREDIT, Part.PACK):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            first.record()
            yield
            last.record()
            self._events.append((part, first, last))
        else:
            started = time.perf_counter()
            yield
            self._seconds[part] += time.perf_counter() - started

    def seconds(self) -> dict[Part, float]:
        """Of all that was measured. Waits for the device."""
        for part, first, last in self._events:
            last.synchronize()
            self._seconds[part] += first.elapsed_time(last) / 1000
        self._events.clear()
        return dict(self._seconds)
