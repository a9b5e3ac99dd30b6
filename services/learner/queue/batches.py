"""Collects the trees of a step, and keeps the replicas supplied with tasks meanwhile."""

import asyncio
import contextlib
import time
from itertools import islice

from services.learner.ledger import Ledger, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Arrival, Intake
from shared.errors import Unavailable
from shared.runtime.logs import event_logger
from shared.streams import StreamsFull
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
_OUTAGE_SECONDS = 0.5
_CHECK_SECONDS = 2.0


class BatchCollector:
    """Takes the trees of the longest outstanding tasks first, so that a batch does not depend on how fast a tree grows,
    and slow trees do not become stale behind fast ones.

    A batch that is full waits `straggler_seconds` for the trees of older tasks; after that no batch waits for them.
    """

    def __init__(
        self, ledger: Ledger, feed: Feed, intake: Intake, metrics: LearnerMetrics, *, straggler_seconds: float
    ) -> None:
        self._ledger = ledger
        self._feed = feed
        self._intake = intake
        self._metrics = metrics
        self._straggler_seconds = straggler_seconds
        self._stragglers: set[tuple[TaskId, int]] = set()
        """The attempts that no batch waits for any more."""
        self._checked = time.monotonic()
        self._silent_since: float | None = None

    @property
    def silent_seconds(self) -> float:
        """How long it has waited without an arrival; 0 while it does not wait."""
        return 0.0 if self._silent_since is None else time.monotonic() - self._silent_since

    async def collect(self, size: int, version: WeightVersion) -> tuple[Arrival, ...]:
        """The next `size` trees, none of which is stale under the weights `version`.

        Waits while Redis is away. Raises StreamsFull when a checkpoint can make room in Redis: call it again then.
        InvalidInput when one task after another fails, as happens when the verifier does not know a kind of problem.
        """
        self._intake.drop_stale(version)
        self._silent_since = time.monotonic()
        try:
            await self._wait_until_complete(size, version)
        finally:
            self._silent_since = None
        with contextlib.suppress(Unavailable):
            await self._feed.top_up()  # a complete batch does not wait for Redis
        chosen = islice((task_id for task_id in self._ledger.outstanding if task_id in self._intake.held), size)
        return tuple(self._intake.arrival(task_id, version) for task_id in chosen)

    async def _wait_until_complete(self, size: int, version: WeightVersion) -> None:
        full_since: float | None = None
        while not self._is_complete(size, full_since):
            await self._top_up()
            num_held = len(self._intake.held)
            try:
                await self._intake.poll(max(1, size - num_held), version)
                await self._restore_lost()
            except Unavailable as error:
                self._record_outage(error)
                await asyncio.sleep(_OUTAGE_SECONDS)
            if len(self._intake.held) > num_held:
                self._silent_since = time.monotonic()
            if full_since is None and len(self._intake.held) >= size:
                full_since = time.monotonic()

    def _is_complete(self, size: int, full_since: float | None) -> bool:
        """Whether the trees of the `size` longest outstanding tasks are here, stragglers aside."""
        held = self._intake.held
        if len(held) < size:
            return False
        self._stragglers &= self._ledger.outstanding.items()
        awaited = islice((item for item in self._ledger.outstanding.items() if item not in self._stragglers), size)
        missing = {(task_id, attempt) for task_id, attempt in awaited if task_id not in held}
        if missing and full_since is not None and time.monotonic() - full_since > self._straggler_seconds:
            tasks = sorted(str(task_id) for task_id, _ in missing)
            log.warning("stragglers_skipped", tasks=tasks, waited_seconds=self._straggler_seconds)
            self._stragglers |= missing
            return True
        return not missing

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
        self._metrics.stream_failures.inc()
        log.warning("stream_unavailable", error=str(error))
