"""A pool of math-verify workers: each question has its time, and a worker that overruns it is killed from outside."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from services.verifier.checks.math.template import Template, Worker
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from shared.errors import InvalidInput, Unavailable
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_KIND = "math"
_RESTART_SECONDS = 1.0
_EXTRA_ATTEMPTS = 3
# A worker that had less of the processor than this share of its time was not slow: the machine was busy.
_OWN_SHARE = 0.25


class Fate(Enum):
    """How asking the workers ended. STARVED and LOST are this service's own failures."""

    ANSWERED = auto()
    TIMED_OUT = auto()
    MEMORY = auto()
    STARVED = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """`is_same` is meant only of ANSWERED."""

    fate: Fate
    is_same: bool = False
    detail: str = ""
    cpu_seconds: float = 0.0


class WorkerPool:
    """Keeps `workers` workers and one warm spare; questions beyond that wait their turn."""

    def __init__(self, config: MathConfig, metrics: VerifierMetrics) -> None:
        self._config = config
        self._metrics = metrics
        self._template = Template(config.memory_bytes)
        self._turns = asyncio.Semaphore(config.workers)
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._live: set[Worker] = set()
        self._short = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if find_spec("gmpy2") is not None:
            raise InvalidInput(
                "gmpy2 can be imported, and with it some answers never end, not even by a signal: uninstall gmpy2 "
                "from the verifier's environment"
            )
        self._short.set()
        self._keeper = asyncio.create_task(self._keep(), name="math-workers")
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

    async def ask(self, gold: str, answer: str, seconds: float) -> Reply:
        """Whether math-verify finds the two the same. A worker lost on the way costs nothing but another try."""
        async with self._turns:
            for _ in range(self._config.workers + _EXTRA_ATTEMPTS):
                worker = await self._idle.get()
                try:
                    return await self._ask(worker, gold, answer, seconds)
                except (ConnectionError, EOFError, ValueError):
                    self._end(worker, "died")
        return Reply(Fate.LOST, detail="every worker that was asked died")

    async def _ask(self, worker: Worker, gold: str, answer: str, seconds: float) -> Reply:
        cpu_before = worker.cpu_seconds()
        try:
            async with asyncio.timeout(seconds):
                reply = await worker.ask(gold, answer)
        except TimeoutError:
            cpu_seconds = worker.cpu_seconds() - cpu_before
            self._end(worker, "timed_out")
            if cpu_seconds < _OWN_SHARE * seconds:
                return Reply(Fate.STARVED, detail=f"{cpu_seconds:.1f} s of the processor in {seconds:g} s")
            return Reply(Fate.TIMED_OUT, detail=f"not compared in {seconds:g} s", cpu_seconds=cpu_seconds)
        except asyncio.CancelledError:
            self._end(worker, "cancelled")
            raise
        if reply.failure == "memory":
            self._end(worker, "memory")
            return Reply(Fate.MEMORY, detail=f"over {self._config.memory_bytes} bytes", cpu_seconds=reply.cpu_seconds)
        self._give_back(worker, reply.peak_bytes)
        return Reply(Fate.ANSWERED, reply.same, reply.failure, reply.cpu_seconds)

    def _give_back(self, worker: Worker, peak_bytes: int) -> None:
        if worker.num_answers >= self._config.items_per_worker or peak_bytes > self._config.memory_bytes // 2:
            self._end(worker, "recycled")
        else:
            self._idle.put_nowait(worker)

    def _end(self, worker: Worker, reason: str) -> None:
        worker.kill()
        self._live.discard(worker)
        self._metrics.worker_kills.labels(_KIND, reason).inc()
        self._short.set()

    async def _keep(self) -> None:
        """Forks what is missing. A template that died takes its workers with it, and is started anew."""
        while True:
            await self._short.wait()
            self._short.clear()
            try:
                while len(self._live) < self._config.workers + 1:
                    worker = await self._template.fork()
                    self._live.add(worker)
                    self._metrics.worker_starts.labels(_KIND).inc()
                    self._idle.put_nowait(worker)
            except (OSError, EOFError, ValueError, Unavailable) as error:
                log.warning("math_template_failed", error=str(error), retry_seconds=_RESTART_SECONDS)
                await self._template.stop()
                await asyncio.sleep(_RESTART_SECONDS)
                self._short.set()
