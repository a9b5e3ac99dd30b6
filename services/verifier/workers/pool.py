"""A pool of worker processes: each call has its time, and a worker that overruns it is killed from outside.

Pebble's pool was measured instead: a loop in C outlives its deadline there by 3 s (here by 2 ms), because Python's
signal handlers wait for the loop's end, and the next call waits 130 ms for a new process (here 2 ms).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from services.verifier.metrics import VerifierMetrics, WorkerEnd
from services.verifier.workers.template import ProcessorTimes, Worker, WorkerTemplate
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_RESTART_SECONDS = 1.0
_SWEEP_SECONDS = 1.0
_EXTRA_ATTEMPTS = 3
# A worker that had less than this share of its time neither ran nor waited for a processor: the machine has a fault.
_FAIR_CPU_SHARE = 0.25
_SHORTEST_WAIT = 0.02
_MOST_OWN_TIME = 3


class ReplyStatus(Enum):
    """How a call ended. STARVED and LOST are this service's own failures."""

    ANSWERED = auto()
    TIMED_OUT = auto()
    MEMORY = auto()
    STARVED = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """`value` is what the function returned, or None where `detail` says what it raised."""

    status: ReplyStatus
    value: Any = None
    detail: str = ""
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`target` is `package.module:function`; `kind` labels the metrics."""

    kind: str
    target: str
    num_workers: int
    memory_bytes: int
    calls_per_worker: int


@asynccontextmanager
async def open_worker_pool(settings: PoolSettings, metrics: VerifierMetrics) -> AsyncIterator["WorkerPool"]:
    """A pool whose workers are started in the background, and killed at the end."""
    pool = WorkerPool(settings, metrics)
    supervisor = asyncio.create_task(pool.supervise(), name="worker-pool")
    try:
        yield pool
    finally:
        supervisor.cancel()
        with suppress(asyncio.CancelledError):
            await supervisor
        await pool.stop()


def _time_left(spent: ProcessorTimes, elapsed_seconds: float, seconds: float) -> float:
    """How long a call may go on. One that computes has its time on a processor, though the machine be slow."""
    own_seconds = elapsed_seconds - spent.waited_seconds
    if spent.used_seconds < _FAIR_CPU_SHARE * own_seconds:
        return seconds - own_seconds
    return min(seconds - spent.used_seconds, _MOST_OWN_TIME * seconds - own_seconds)


def _overrun(cpu_seconds: float, seconds: float) -> Reply:
    if cpu_seconds < _FAIR_CPU_SHARE * seconds:
        return Reply(ReplyStatus.STARVED, detail=f"{cpu_seconds:.1f} s of the processor in {seconds:g} s")
    return Reply(ReplyStatus.TIMED_OUT, detail=f"not done in {seconds:g} s", cpu_seconds=cpu_seconds)


class WorkerPool:
    """Keeps `num_workers` workers and one warm spare; further calls wait."""

    def __init__(self, settings: PoolSettings, metrics: VerifierMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        metrics.add_pool(settings.kind)
        self._template = WorkerTemplate(settings.target, settings.memory_bytes)
        self._may_call = asyncio.Semaphore(settings.num_workers)
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._live: set[Worker] = set()
        self._worker_missing = asyncio.Event()
        self._worker_missing.set()

    @property
    def num_live(self) -> int:
        return len(self._live)

    @property
    def pids(self) -> list[int]:
        """The processes that live now, the template first."""
        template = [] if self._template.pid is None else [self._template.pid]
        return template + [worker.pid for worker in self._live]

    async def call(self, arguments: Sequence[Any], seconds: float) -> Reply:
        """Calls the function in a worker. If the worker dies, another one is tried.

        `seconds` is how long the call may run; while other processes have the processors it does not run, so that the
        reply does not depend on the machine's load.
        """
        async with self._may_call:
            for _ in range(self._settings.num_workers + _EXTRA_ATTEMPTS):
                worker = await self._idle.get()
                try:
                    return await self._call(worker, arguments, seconds)
                except (ConnectionError, EOFError, ValueError):
                    self._end(worker, WorkerEnd.DIED)
        return Reply(ReplyStatus.LOST, detail="every worker that was called died")

    async def _call(self, worker: Worker, arguments: Sequence[Any], seconds: float) -> Reply:
        before, started = worker.times(), time.monotonic()
        calling = asyncio.create_task(worker.call(arguments))
        try:
            left = seconds
            while not (await asyncio.wait([calling], timeout=max(left, _SHORTEST_WAIT)))[0]:
                spent = worker.times().since(before)
                left = _time_left(spent, time.monotonic() - started, seconds)
                if left <= 0:
                    calling.cancel()
                    self._end(worker, WorkerEnd.TIMED_OUT)
                    return _overrun(spent.used_seconds, seconds)
            reply = calling.result()
        except asyncio.CancelledError:
            calling.cancel()
            self._end(worker, WorkerEnd.CANCELLED)
            raise
        if reply.failure == "memory":
            self._end(worker, WorkerEnd.MEMORY)
            detail = f"over {self._settings.memory_bytes} bytes"
            return Reply(ReplyStatus.MEMORY, detail=detail, cpu_seconds=reply.cpu_seconds)
        if worker.num_calls >= self._settings.calls_per_worker or reply.peak_bytes > self._settings.memory_bytes // 2:
            self._end(worker, WorkerEnd.RECYCLED)
        else:
            self._idle.put_nowait(worker)
        return Reply(ReplyStatus.ANSWERED, reply.value, reply.failure, reply.cpu_seconds)

    def _end(self, worker: Worker, reason: WorkerEnd) -> None:
        worker.kill()
        self._live.discard(worker)
        self._metrics.worker_kills.labels(self._settings.kind, reason).inc()
        self._worker_missing.set()

    async def supervise(self) -> None:
        """Replaces missing workers until cancelled. A template that died took its workers with it; a new one starts."""
        num_failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):  # wait_for may swallow the cancellation that ends this
                    await self._worker_missing.wait()
            self._worker_missing.clear()
            self._end_dead_workers()
            try:
                while len(self._live) < self._settings.num_workers + 1:
                    worker = await self._template.fork()
                    self._live.add(worker)
                    self._metrics.worker_starts.labels(self._settings.kind).inc()
                    self._idle.put_nowait(worker)
                    num_failures = 0
            except Exception as error:  # noqa: BLE001 - a loop's border: without its supervisor the pool is lost
                num_failures += 1
                log.warning("template_failed", target=self._settings.target, error=repr(error), times=num_failures)
                await self._template.stop()
                self._worker_missing.set()
                if num_failures > 1:
                    await asyncio.sleep(_RESTART_SECONDS)

    async def stop(self) -> None:
        for worker in self._live:
            worker.kill()
        await self._template.stop()

    def _end_dead_workers(self) -> None:
        """Removes idle workers that have died, so that the next call finds a live one."""
        for _ in range(self._idle.qsize()):
            worker = self._idle.get_nowait()
            if worker.is_alive:
                self._idle.put_nowait(worker)
            else:
                self._end(worker, WorkerEnd.DIED)
