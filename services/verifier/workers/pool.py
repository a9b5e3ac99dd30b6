"""A pool of workers: each question has its time, and a worker that overruns it is killed from outside."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

from services.verifier.metrics import VerifierMetrics, WorkerEnd
from services.verifier.workers.template import Worker, WorkerTemplate
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_RESTART_SECONDS = 1.0
_SWEEP_SECONDS = 1.0
_EXTRA_ATTEMPTS = 3
# A worker that had less of the processor than this share of its time was not slow: the machine was busy.
_OWN_SHARE = 0.25


class ReplyStatus(Enum):
    """How asking the workers ended. STARVED and LOST are this service's own failures."""

    ANSWERED = auto()
    TIMED_OUT = auto()
    MEMORY = auto()
    STARVED = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """`value` is the function's, or None where `detail` says what it raised."""

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


class WorkerPool:
    """Keeps a number of workers and one warm spare; questions beyond that wait their turn."""

    def __init__(self, settings: PoolSettings, metrics: VerifierMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        metrics.add_pool(settings.kind)
        self._template = WorkerTemplate(settings.target, settings.memory_bytes)
        self._turns = asyncio.Semaphore(settings.num_workers)
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._live: set[Worker] = set()
        self._short = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._short.set()
        self._keeper = asyncio.create_task(self._keep(), name="worker-pool")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        for worker in self._live:
            worker.kill()
        await self._template.stop()

    @property
    def num_live(self) -> int:
        return len(self._live)

    @property
    def pids(self) -> list[int]:
        """The processes that live now, the template first."""
        template = [] if self._template.pid is None else [self._template.pid]
        return template + [worker.pid for worker in self._live]

    async def ask(self, arguments: Sequence[Any], seconds: float) -> Reply:
        """The function's value of `arguments`. A worker lost on the way costs nothing but another try."""
        async with self._turns:
            for _ in range(self._settings.num_workers + _EXTRA_ATTEMPTS):
                worker = await self._idle.get()
                try:
                    return await self._ask(worker, arguments, seconds)
                except (ConnectionError, EOFError, ValueError):
                    self._end(worker, WorkerEnd.DIED)
        return Reply(ReplyStatus.LOST, detail="every worker that was asked died")

    async def _ask(self, worker: Worker, arguments: Sequence[Any], seconds: float) -> Reply:
        cpu_before = worker.cpu_seconds()
        try:
            async with asyncio.timeout(seconds):
                reply = await worker.ask(arguments)
        except TimeoutError:
            cpu_seconds = worker.cpu_seconds() - cpu_before
            self._end(worker, WorkerEnd.TIMED_OUT)
            if cpu_seconds < _OWN_SHARE * seconds:
                return Reply(ReplyStatus.STARVED, detail=f"{cpu_seconds:.1f} s of the processor in {seconds:g} s")
            return Reply(ReplyStatus.TIMED_OUT, detail=f"not done in {seconds:g} s", cpu_seconds=cpu_seconds)
        except asyncio.CancelledError:
            self._end(worker, WorkerEnd.CANCELLED)
            raise
        if reply.failure == "memory":
            self._end(worker, WorkerEnd.MEMORY)
            return Reply(
                ReplyStatus.MEMORY, detail=f"over {self._settings.memory_bytes} bytes", cpu_seconds=reply.cpu_seconds
            )
        self._give_back(worker, reply.peak_bytes)
        return Reply(ReplyStatus.ANSWERED, reply.value, reply.failure, reply.cpu_seconds)

    def _give_back(self, worker: Worker, peak_bytes: int) -> None:
        if worker.num_answers >= self._settings.calls_per_worker or peak_bytes > self._settings.memory_bytes // 2:
            self._end(worker, WorkerEnd.RECYCLED)
        else:
            self._idle.put_nowait(worker)

    def _end(self, worker: Worker, reason: WorkerEnd) -> None:
        worker.kill()
        self._live.discard(worker)
        self._metrics.worker_kills.labels(self._settings.kind, reason).inc()
        self._short.set()

    async def _keep(self) -> None:
        """Replaces what is missing. A template that died takes its workers with it, and is started anew."""
        num_failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):  # wait_for may swallow the cancellation that ends this
                    await self._short.wait()
            self._short.clear()
            self._sweep()
            try:
                while len(self._live) < self._settings.num_workers + 1:
                    await self._add_worker()
                    num_failures = 0
            except Exception as error:  # noqa: BLE001 - a loop's border: without its keeper the pool is lost
                num_failures += 1
                log.warning("template_failed", target=self._settings.target, error=repr(error), times=num_failures)
                await self._template.stop()
                self._short.set()
                if num_failures > 1:
                    await asyncio.sleep(_RESTART_SECONDS)

    async def _add_worker(self) -> None:
        worker = await self._template.fork()
        self._live.add(worker)
        self._metrics.worker_starts.labels(self._settings.kind).inc()
        self._idle.put_nowait(worker)

    def _sweep(self) -> None:
        """Takes out the idle workers that have died, so that the next question finds a warm one."""
        for _ in range(self._idle.qsize()):
            worker = self._idle.get_nowait()
            if worker.is_alive:
                self._idle.put_nowait(worker)
            else:
                self._end(worker, WorkerEnd.DIED)
