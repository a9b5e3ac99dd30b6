"""Takes scored trees in: wanted ones become a batch, the others are counted and turned away."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from services.learner.ledger import End, Ledger, Standing, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.queue.feed import Feed
from services.learner.queue.task_sequence import Curriculum
from services.learner.queue.validation import unsoundness_of
from shared.errors import InvalidInput, Unavailable
from shared.protocol.task import DeadLetter, Task
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.streams import Delivery, RunStreams, StreamsFull, Unreadable
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
CONSUMER = "learner"
_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 2.0
_TREES_AT_ONCE = 8
_MAX_FAILURES_IN_ROW = 100


@dataclass(frozen=True, slots=True)
class Settled:
    """Stream entries whose feedings have ended in the books."""

    trees: tuple[str, ...]
    dead_letters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A tree that is wanted: its task is outstanding until it is settled."""

    task_id: TaskId
    tree: ScoredTree
    staleness: int
    entry_id: str


class Intake:
    """Collects batches. Every result that ends a feeding returns its credit, and is acknowledged with the next
    checkpoint only: after a crash it is delivered again, to books that do not know it yet."""

    def __init__(
        self,
        streams: RunStreams,
        curriculum: Curriculum,
        ledger: Ledger,
        feed: Feed,
        metrics: LearnerMetrics,
        *,
        max_staleness: int,
        straggler_seconds: float,
        vocab_size: int,
    ) -> None:
        self._streams = streams
        self._curriculum = curriculum
        self._ledger = ledger
        self._feed = feed
        self._metrics = metrics
        self._max_staleness = max_staleness
        self._patience_seconds = straggler_seconds
        self._vocab_size = vocab_size
        self._again: list[str] = []
        self._held: dict[TaskId, Delivery[ScoredTree]] = {}
        self._late: set[TaskId] = set()
        self._settled_trees: list[str] = []
        self._settled_letters: list[str] = []
        self._must_recover = False
        self._failures_in_row = 0
        self._looked = time.monotonic()

    async def recover(self) -> None:
        """Takes what was delivered to an earlier life, or in a reply that was lost, and is not acknowledged."""
        known = {*self._settled_trees, *(delivery.entry_id for delivery in self._held.values())}
        self._again = [entry_id for entry_id in await self._streams.trees.pending() if entry_id not in known]
        buried = await self._streams.dead_letters.pending()
        again = [entry_id for entry_id in buried if entry_id not in self._settled_letters]
        for letter in await self._streams.dead_letters.redeliver(CONSUMER, again):
            self._bury(letter)
        self._must_recover = False

    async def batch(self, size: int, version: WeightVersion) -> tuple[Arrival, ...]:
        """The next `size` trees to learn from under the weights `version`: those of the feedings that are out longest.

        A tree that is quick to grow overtakes none that is slow: what a batch holds depends on no speed, and the slow
        do not grow stale behind the quick. A full batch waits for `straggler_seconds`; for what is not there by then no
        batch waits any more.

        Meanwhile tasks are fed as credits come free. A Redis that is away is waited for; StreamsFull when it is full
        and a checkpoint can make room: ask again after it. InvalidInput when one task after another fails, as they do
        where a kind of problem is unknown to the verifier.
        """
        self._drop_stale(version)
        full_since: float | None = None
        while not self._is_complete(size, full_since):
            await self._top_up()
            try:
                await self._turn(max(1, size - len(self._held)), version)
            except Unavailable as error:
                self._must_recover = True  # something may have been delivered in a reply that never came
                self._note_outage(error)
                await asyncio.sleep(_WAIT_SECONDS / 2)
            if full_since is None and len(self._held) >= size:
                full_since = time.monotonic()
        with contextlib.suppress(Unavailable):
            await self._feed.top_up()  # what this turn freed; a full batch waits for nothing
        chosen = islice((task_id for task_id in self._ledger.outstanding if task_id in self._held), size)
        return tuple(self._arrival(task_id, version) for task_id in chosen)

    def settle(self, arrivals: Iterable[tuple[Arrival, End]]) -> None:
        """Ends the feedings of a batch: their effect is in the learner's state from now on."""
        for arrival, end in arrivals:
            self._ledger.settle(arrival.task_id, end)
            self._settled_trees.append(arrival.entry_id)
            self._metrics.record_used(arrival.tree)
            del self._held[arrival.task_id]

    async def acknowledge(self, settled: Settled) -> None:
        """Lets go of what a checkpoint now contains."""
        await self._streams.trees.acknowledge(settled.trees)
        await self._streams.dead_letters.acknowledge(settled.dead_letters)
        del self._settled_trees[: len(settled.trees)]
        del self._settled_letters[: len(settled.dead_letters)]

    @property
    def settled(self) -> Settled:
        """What may be acknowledged once the books as they are now are on disk."""
        return Settled(tuple(self._settled_trees), tuple(self._settled_letters))

    async def _top_up(self) -> None:
        """Feeds. What cannot be fed now keeps no tree from being taken."""
        try:
            await self._feed.top_up()
        except Unavailable as error:
            self._note_outage(error)
            if isinstance(error, StreamsFull) and self._settled_trees:
                raise

    def _note_outage(self, error: Unavailable) -> None:
        self._metrics.stream_failures.inc()
        log.warning("stream_unavailable", error=str(error))

    async def _turn(self, wanted: int, version: WeightVersion) -> None:
        if self._must_recover:
            await self.recover()
        for letter in await self._streams.dead_letters.take(CONSUMER, count=64, wait_seconds=0.0):
            self._bury(letter)
        for delivery in await self._next(wanted):
            self._admit(delivery, version)
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            await self._feed.restore_lost(self._held)
            self._looked = time.monotonic()

    async def _next(self, count: int) -> list[Delivery[ScoredTree | Unreadable]]:
        """Up to `count` trees, of which one reply holds no more than come well within a command's deadline."""
        count = min(count, _TREES_AT_ONCE)
        if self._again:
            chosen, self._again = self._again[:count], self._again[count:]
            return await self._streams.trees.redeliver(CONSUMER, chosen)
        return await self._streams.trees.take(CONSUMER, count, _WAIT_SECONDS)

    def _is_complete(self, size: int, full_since: float | None) -> bool:
        """Whether the first `size` in their turn are here, or others have waited long enough for them."""
        if len(self._held) < size:
            return False
        self._late &= self._ledger.outstanding.keys() - self._held.keys()
        awaited = islice((task_id for task_id in self._ledger.outstanding if task_id not in self._late), size)
        missing = {task_id for task_id in awaited if task_id not in self._held}
        if missing and full_since is not None and time.monotonic() - full_since > self._patience_seconds:
            log.warning("trees_are_late", tasks=sorted(map(str, missing)), waited_seconds=self._patience_seconds)
            self._late |= missing
            return True
        return not missing

    def _arrival(self, task_id: TaskId, version: WeightVersion) -> Arrival:
        delivery = self._held[task_id]
        return Arrival(task_id, delivery.item, delivery.item.staleness(version), delivery.entry_id)

    def _drop_stale(self, version: WeightVersion) -> None:
        """Of the trees that earlier batches left, those that this one cannot use any more."""
        for task_id, delivery in tuple(self._held.items()):
            if delivery.item.staleness(version) > self._max_staleness:
                del self._held[task_id]
                self._drop(task_id, delivery)

    def _drop(self, task_id: TaskId, delivery: Delivery[ScoredTree]) -> None:
        self._metrics.record_stale(delivery.item)
        self._late.discard(task_id)
        self._feed.feed_again(task_id, End.STALE)
        self._settled_trees.append(delivery.entry_id)

    def _admit(self, delivery: Delivery[ScoredTree | Unreadable], version: WeightVersion) -> None:
        """Holds a tree that is wanted; ends, or turns away, what is not."""
        tree = delivery.item
        task_id = self._wanted(tree if isinstance(tree, Unreadable) else tree.task)
        if task_id is None:
            self._settled_trees.append(delivery.entry_id)
        elif isinstance(tree, Unreadable):
            self._refuse(task_id, delivery.entry_id, tree.reason)
        elif reason := unsoundness_of(tree, self._vocab_size):
            self._refuse(task_id, delivery.entry_id, reason)
        elif tree.staleness(version) > self._max_staleness:
            self._failures_in_row = 0
            self._drop(task_id, Delivery(delivery.entry_id, tree))
        else:
            self._failures_in_row = 0
            self._held[task_id] = Delivery(delivery.entry_id, tree)

    def _refuse(self, task_id: TaskId, entry_id: str, reason: str) -> None:
        """Ends a feeding whose tree is of no use; another replica may do better."""
        self._settled_trees.append(entry_id)
        self._metrics.refused.inc()
        log.error("tree_refused", task=str(task_id), reason=reason)
        if not self._feed.feed_again(task_id, End.FAILED):
            self._note_failure(reason)

    def _bury(self, delivery: Delivery[DeadLetter | Unreadable]) -> None:
        """Ends a feeding that the replicas gave up."""
        self._settled_letters.append(delivery.entry_id)
        letter = delivery.item
        task_id = self._wanted(letter if isinstance(letter, Unreadable) else letter.task)
        if task_id is not None:
            self._ledger.settle(task_id, End.FAILED)
            log.error("task_failed", task=str(task_id), reason=letter.reason)
            self._note_failure(letter.reason)

    def _note_failure(self, reason: str) -> None:
        self._failures_in_row += 1
        if self._failures_in_row >= _MAX_FAILURES_IN_ROW:
            raise InvalidInput(f"{self._failures_in_row} tasks in a row were given up, the last one: {reason}")

    def _wanted(self, result: Task | Unreadable) -> TaskId | None:
        """The task's id, when the feeding that this is the result of is out; else it is counted as not wanted."""
        task_id = self._own(result)
        standing = Standing.FOREIGN if task_id is None else self._standing(task_id, result.attempt)
        if standing is Standing.OUTSTANDING:
            return task_id
        self._ledger.turn_away(standing)
        log.info("result_turned_away", task=result.id, attempt=result.attempt, standing=standing.value)
        return None

    def _own(self, result: Task | Unreadable) -> TaskId | None:
        """The task's id, when this run, with this data and growth, mints just this task under it. Of what cannot be
        read the id is all there is."""
        try:
            task_id = TaskId.parse(result.id)
            is_own = isinstance(result, Unreadable) or self._curriculum.task(task_id, result.attempt) == result
        except (InvalidInput, LookupError):
            return None
        return task_id if is_own else None

    def _standing(self, task_id: TaskId, attempt: int) -> Standing:
        return Standing.DUPLICATE if task_id in self._held else self._ledger.standing(task_id, attempt)
