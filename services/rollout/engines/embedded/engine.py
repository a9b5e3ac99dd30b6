"""The embedded engine: requests come and go on the event loop, and one task decodes the batch of all of them."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.rollout.engines.embedded.batch import DecodeBatch, EmbeddedSettings
from services.rollout.engines.embedded.in_place import BundleWeights
from services.rollout.engines.embedded.metrics import EmbeddedCounters
from services.rollout.engines.embedded.model import NewWeights, load_model, load_successor
from services.rollout.engines.embedded.row import CompletionRow, Row, ScoreRow
from services.rollout.engines.engine import Completion, EngineLimits, Request, ScoreRequest, TokenScores
from shared.errors import IbtpoError, Overloaded, Unavailable
from shared.runtime.logs import event_logger
from shared.tree.draw import WeightVersion

log = event_logger(__name__)

INLINE_SECONDS = 0.05
"""A decode expected to take no longer runs on the event loop itself."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _WeightChange:
    """New weights, ready to serve from the next decode on; `ended` once they serve, or never will."""

    weights: NewWeights
    version: WeightVersion
    ended: asyncio.Event

    def discard(self) -> None:
        if isinstance(self.weights, BundleWeights):
            self.weights.close()
        self.ended.set()


class EmbeddedEngine:
    """Implements Engine on the CPU with a transformers causal LM.

    A long decode runs in a thread, so that the event loop stays responsive; a short one runs on the loop itself, which
    saves the way to another core and back (docs/results/engine.md). Between two decodes the loop runs once: callers
    get their completions and send their next requests, which the next decode then serves.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.counters = EmbeddedCounters()
        self._settings = settings
        self._waiting: deque[Row] = deque()
        self._futures: dict[Row, asyncio.Future[None]] = {}
        self._batch: DecodeBatch | None = None
        self._version: WeightVersion | None = None
        self._weight_change: _WeightChange | None = None
        self._loading = asyncio.Lock()
        self._has_work = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-engine")
        self._seconds_per_token = float("inf")
        self._is_closed = False

    @property
    def version(self) -> WeightVersion | None:
        return self._version

    @property
    def limits(self) -> EngineLimits:
        if self._batch is None or self._version is None:
            raise Unavailable("no weights are loaded yet: wait until the replica is ready")
        return self._batch.model.limits

    @property
    def computes_in_float32(self) -> bool:
        return self._batch is not None and not self._batch.model.is_halved

    async def complete(self, request: Request) -> Completion:
        self._check_open()
        self.limits.check(request)
        row = CompletionRow.of(request)
        await self._finish(row)
        return row.completion()

    async def score(self, request: ScoreRequest) -> TokenScores:
        self._check_open()
        self.limits.check_score(request)
        row = ScoreRow.of(request)
        await self._finish(row)
        return row.scores()

    async def load(self, snapshot: Path, version: WeightVersion, *, afresh: bool = False) -> None:
        async with self._loading:
            self._check_open()
            settings = self._settings
            if self._batch is None:
                await self._start(snapshot, version)
                return
            weights = await asyncio.to_thread(
                load_successor,
                self._batch.model,
                snapshot,
                settings.context_length,
                halve=settings.halve,
                afresh=afresh,
            )
            change = self._weight_change = _WeightChange(weights, version, asyncio.Event())
            try:
                self._check_open()
                self._has_work.set()
                await change.ended.wait()
                self._check_open()
            except BaseException:
                self._withdraw(change)
                raise
            if self._version != version:
                raise Unavailable(
                    f"{version} was not copied whole (see the log): nothing serves until weights come again"
                )

    async def _start(self, snapshot: Path, version: WeightVersion) -> None:
        settings = self._settings
        model = await asyncio.to_thread(load_model, snapshot, settings.context_length, halve=settings.halve)
        self._check_open()
        if settings.trace:
            await asyncio.to_thread(model.trace)
            self._check_open()
        self._batch = DecodeBatch(model, version, settings, self.counters)
        self._version = version
        self._runner = asyncio.create_task(self._run(self._batch), name="embedded-engine")

    async def close(self) -> None:
        self._is_closed = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        await asyncio.to_thread(self._thread.shutdown)
        self._fail(self._futures, Unavailable("the engine is closed: ask another replica"))
        if self._weight_change is not None:
            self._withdraw(self._weight_change)
        self._waiting.clear()
        self._batch = self._runner = None

    async def _finish(self, row: Row) -> None:
        """Returns once the batch has finished the row; Overloaded if too many wait."""
        if len(self._waiting) >= self._settings.max_waiting:
            raise Overloaded(
                f"{len(self._waiting)} requests wait, max_waiting is {self._settings.max_waiting}: try later"
            )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[row] = future
        self._waiting.append(row)
        self._has_work.set()
        try:
            await future
        except asyncio.CancelledError:
            self._cancel(row)
            raise
        finally:
            del self._futures[row]

    def _cancel(self, row: Row) -> None:
        """Removes a row that nobody waits for: from the queue at once, or from the batch at the next decode."""
        row.is_cancelled = True
        with suppress(ValueError):
            self._waiting.remove(row)
        self.counters.cancelled_requests += 1

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the engine is closed: ask another replica")

    async def _run(self, batch: DecodeBatch) -> None:
        """Decodes while there is work, and lets the event loop run between any two decodes."""
        while True:
            if not (self._waiting or batch.num_rows or self._weight_change):
                self._has_work.clear()
                self.counters.rows_in_flight = self.counters.waiting = 0
                await self._has_work.wait()
            try:
                await self._advance(batch)
            except Exception as error:  # the rows fail, the engine goes on
                log.exception("engine_decode_failed")
                self.counters.failed_decodes += 1
                batch.clear()
                in_batch = self._futures.keys() - set(self._waiting)
                self._fail(in_batch, Unavailable(f"the engine failed on this batch: {error}; try again"))
            await asyncio.sleep(0)

    async def _advance(self, batch: DecodeBatch) -> None:
        """One change of the weights, or one decode."""
        if self._weight_change is not None:
            await self._apply(batch, self._weight_change)
            return
        counters, started = self.counters, time.perf_counter()
        before = counters.computed_tokens
        if batch.max_next_tokens(self._waiting) * self._seconds_per_token <= INLINE_SECONDS:
            finished = batch.decode(self._waiting)
        else:
            finished = await self._in_thread(batch.decode, self._waiting)
        seconds = time.perf_counter() - started
        if computed := counters.computed_tokens - before:
            self._seconds_per_token = seconds / computed
        self._resolve(finished)
        counters.decodes += 1
        counters.decode_seconds += seconds
        counters.rows_in_flight, counters.waiting = batch.num_rows, len(self._waiting)

    async def _apply(self, batch: DecodeBatch, change: _WeightChange) -> None:
        """The new weights serve once they are copied, even if recomputing the rows in flight fails."""
        started = time.perf_counter()
        self._weight_change = None
        try:
            await self._in_thread(batch.replace_weights, change.weights, change.version)
            self._version = change.version
        except Exception as error:  # some weights are old, some new: nobody may be answered from them
            self._version = None
            self._waiting.clear()
            self._fail(self._futures, Unavailable(f"copying new weights failed: {error}; ask another replica"))
            raise
        finally:
            change.ended.set()
        self.counters.weight_changes += 1
        await self._in_thread(batch.recompute)
        self.counters.pauses.observe(time.perf_counter() - started)

    def _withdraw(self, change: _WeightChange) -> None:
        """Of a change that is not being applied: it never will be."""
        if self._weight_change is change:
            self._weight_change = None
            change.discard()

    def _in_thread(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _resolve(self, finished: list[Row]) -> None:
        for row in finished:
            if (future := self._futures.get(row)) is not None and not future.done():
                future.set_result(None)
                self.counters.finished_requests += 1

    def _fail(self, rows: Iterable[Row], error: IbtpoError) -> None:
        for row in rows:
            if (future := self._futures.get(row)) is not None and not future.done():
                future.set_exception(error)
