"""Collects the trees of a step, and keeps the replicas supplied with tasks meanwhile."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.learner.ledger import Ledger, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Arrival, Intake
from services.learner.waits import Wait
from shared.errors import Unavailable
from shared.protocol.tree import ScoredTree
from shared.protocol.waiting import WaitKind
from shared.runtime.logs import event_logger
from shared.streams import StreamsFull
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
_OUTAGE_SECONDS = 0.5
_CHECK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Refill:
    """Batches are filled up until enough of their trees count (DAPO's dynamic sampling)."""

    counts: Callable[[ScoredTree], bool]
    max_trees: int
    """A batch of so many is complete, however few of them count."""


class BatchCollector:
    """Takes the trees of the longest outstanding tasks first, so that a batch does not depend on how fast a tree grows,
    and slow trees do not become stale behind fast ones. Without `refill` every tree counts.

    A batch that is full waits `straggler_seconds` for the trees of older tasks; after that no batch waits for them.
    """

    def __init__(
        self,
        ledger: Ledger,
        feed: Feed,
        intake: Intake,
        metrics: LearnerMetrics,
        *,
        straggler_seconds: float,
        refill: Refill | None = None,
    ) -> None:
        self._ledger = ledger
        self._feed = feed
        self._intake = intake
        self._metrics = metrics
        self._straggler_seconds = straggler_seconds
        self._refill = refill
        self._stragglers: set[tuple[TaskId, int]] = set()
        """The attempts that no batch waits for any more."""
        self._checked = time.monotonic()
        self._silent_since: float | None = None
        self.outage = ""
        """Why Redis gives no trees; empty while it does."""

    @property
    def silent_seconds(self) -> float:
        """How long it has waited without an arrival; 0 while it does not wait."""
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    @property
    def num_extra(self) -> int:
        """How many trees are here that do not count: so many more tasks may be outstanding."""
        return 0 if self._refill is None else sum(not self._counts(task_id) for task_id in self._intake.held)

    async def collect(
        self,
        size: int,
        version: WeightVersion,
        max_generated_tokens: float = math.inf,
        wait: Wait | None = None,
    ) -> tuple[Arrival, ...]:
        """The next trees of which `size` count, none of them stale under the weights `version`.

        With `refill` fewer count where the trees reach `max_generated_tokens` or the bound of trees. Waits while Redis
        is away. Raises StreamsFull when a checkpoint can make room in Redis: call it again then. InvalidInput when one
        task after another fails, as happens when the verifier does not know a kind of problem.
        """
        self._intake.drop_stale(version)
        max_tokens = math.inf if self._refill is None else max_generated_tokens
        self._silent_since = time.monotonic()
        try:
            await self._wait_until_complete(size, version, max_tokens, wait or Wait(WaitKind.TREES))
        finally:
            self._silent_since = None
            self.outage = ""
        with contextlib.suppress(Unavailable):
            await self._feed.top_up()  # a complete batch does not wait for Redis
        chosen, _ = self._first(self._held_tasks(), size, max_tokens)
        return tuple(self._intake.arrival(task_id, version) for task_id in chosen)

    async def _wait_until_complete(self, size: int, version: WeightVersion, max_tokens: float, wait: Wait) -> None:
        full_since: float | None = None
        wait.begin(min(size, len(self._intake.held)), size)
        while not self._is_complete(size, max_tokens, full_since):
            await self._top_up()
            num_held = len(self._intake.held)
            try:
                await self._intake.poll(max(1, size - num_held), version)
                await self._restore_lost()
                self.outage = ""
            except Unavailable as error:
                self._record_outage(error)
                await asyncio.sleep(_OUTAGE_SECONDS)
            wait.reach(min(size, len(self._intake.held)))
            if len(self._intake.held) > num_held:
                self._silent_since = time.monotonic()
            if full_since is None and self._first(self._held_tasks(), size, max_tokens)[1]:
                full_since = time.monotonic()

    def _is_complete(self, size: int, max_tokens: float, full_since: float | None) -> bool:
        """Whether the trees of the longest outstanding tasks are here, stragglers aside."""
        if not self._first(self._held_tasks(), size, max_tokens)[1]:
            return False
        outstanding = self._ledger.outstanding
        self._stragglers &= outstanding.items()
        others = (task_id for task_id, attempt in outstanding.items() if (task_id, attempt) not in self._stragglers)
        awaited, _ = self._first(others, size, max_tokens)
        missing = {(task_id, outstanding[task_id]) for task_id in awaited if task_id not in self._intake.held}
        if missing and full_since is not None and time.monotonic() - full_since > self._straggler_seconds:
            tasks = sorted(str(task_id) for task_id, _ in missing)
            log.warning("stragglers_skipped", tasks=tasks, waited_seconds=self._straggler_seconds)
            self._stragglers |= missing
            return True
        return not missing

    def _held_tasks(self) -> Iterable[TaskId]:
        """Those whose trees are here, the longest outstanding first."""
        return (task_id for task_id in self._ledger.outstanding if task_id in self._intake.held)

    def _first(self, tasks: Iterable[TaskId], size: int, max_tokens: float) -> tuple[list[TaskId], bool]:
        """The first of these tasks, of which `size` count, and whether they fill a batch. A tree that is not here yet
        counts."""
        max_trees = math.inf if self._refill is None else self._refill.max_trees
        chosen: list[TaskId] = []
        num_counting, num_tokens = 0, 0
        if size == 0:
            return chosen, True
        for task_id in tasks:
            chosen.append(task_id)
            num_counting += self._counts(task_id)
            if task_id in self._intake.held:
                num_tokens += self._intake.tree(task_id).usage.generated_tokens
            if num_counting == size or len(chosen) == max_trees or num_tokens >= max_tokens:
                return chosen, True
        return chosen, False

    def _counts(self, task_id: TaskId) -> bool:
        if self._refill is None or task_id not in self._intake.held:
            return True
        return self._refill.counts(self._intake.tree(task_id))

    async def _top_up(self) -> None:
        """Tops up the task stream; a failure here must not stop us from taking trees."""
        try:
            await self._feed.top_up()
        except Unavailable as error:
            self._record_outage(error)
            if isinstance(error, StreamsFull) and self._intake.settled.trees:
                raise

    async def _restore_lost(self) -> None:
        if time.monotonic() - self._checked > _CHECK_SECONDS:
            await self._feed.restore_lost(self._intake.held)
            self._checked = time.monotonic()

    def _record_outage(self, error: Unavailable) -> None:
        self.outage = str(error)
        self._metrics.stream_failures.inc()
        log.warning("stream_unavailable", error=str(error))
