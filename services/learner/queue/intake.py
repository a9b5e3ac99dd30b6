"""Takes in what the replicas return: scored trees are held for a batch, all other results are counted."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from services.learner.ledger import End, Ledger, Standing, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.queue.feed import Feed
from services.learner.queue.task_sequence import TaskSequence
from services.learner.queue.validation import reject_reason
from shared.errors import InvalidInput, Unavailable
from shared.protocol.task import DeadLetter, Task
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.streams import Delivery, RunStreams, Unreadable
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
CONSUMER = "learner"
_WAIT_SECONDS = 1.0
_MAX_LETTERS = 64
_MAX_TREES = 8
"""One reply must arrive well within a command's deadline."""
_MAX_FAILURES_IN_ROW = 100
_MAX_STALE_IN_ROW = 200
_FEW_STALE = 10


@dataclass(frozen=True, slots=True)
class SettledEntries:
    """Ids of stream entries that the ledger has counted."""

    trees: tuple[str, ...]
    dead_letters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A tree in a batch; its task is outstanding until it is settled."""

    task_id: TaskId
    tree: ScoredTree
    staleness: int
    entry_id: str


class Intake:
    """Holds the trees of outstanding tasks until they are settled. Every result is acknowledged with the next
    checkpoint only: after a crash it is delivered again, to a ledger that does not know it yet."""

    def __init__(
        self,
        streams: RunStreams,
        sequence: TaskSequence,
        ledger: Ledger,
        feed: Feed,
        metrics: LearnerMetrics,
        *,
        origins: Callable[[], Collection[str]],
        max_staleness: int,
        vocab_size: int,
        wants_present_weights: bool = False,
    ) -> None:
        """`wants_present_weights`: equal weights of an earlier generation are stale, too."""
        self._streams = streams
        self._sequence = sequence
        self._ledger = ledger
        self._feed = feed
        self._metrics = metrics
        self._origins = origins
        self._max_staleness = max_staleness
        self._vocab_size = vocab_size
        self._wants_present_weights = wants_present_weights
        self._redelivered: list[str] = []
        self._held: dict[TaskId, Delivery[ScoredTree]] = {}
        self._settled_trees: list[str] = []
        self._settled_letters: list[str] = []
        self._must_recover = False
        self._failures_in_row = 0
        self._stale_in_row = 0
        self._stale_reason = ""

    @property
    def complaint(self) -> str:
        """What is wrong with the trees that come, where nothing else comes; empty otherwise."""
        if self._stale_in_row < _FEW_STALE:
            return ""
        return f"the last {self._stale_in_row} trees were stale: {self._stale_reason}"

    @property
    def held(self) -> Collection[TaskId]:
        return self._held.keys()

    @property
    def settled(self) -> SettledEntries:
        """What may be acknowledged once the ledger as it is now is on disk."""
        return SettledEntries(tuple(self._settled_trees), tuple(self._settled_letters))

    async def recover(self) -> None:
        """Finds what was delivered and not acknowledged: to an earlier process, or in a reply that was lost."""
        known = {*self._settled_trees, *(delivery.entry_id for delivery in self._held.values())}
        self._redelivered = [entry_id for entry_id in await self._streams.trees.pending() if entry_id not in known]
        pending = await self._streams.dead_letters.pending()
        letters = [entry_id for entry_id in pending if entry_id not in self._settled_letters]
        for letter in await self._streams.dead_letters.redeliver(CONSUMER, letters):
            self._take_dead_letter(letter)
        self._must_recover = False

    async def poll(self, count: int, version: WeightVersion) -> None:
        """Takes dead letters and up to `count` trees, and waits a moment where there is no tree. Raises Unavailable
        while Redis is away."""
        try:
            if self._must_recover:
                await self.recover()
            for letter in await self._streams.dead_letters.take(CONSUMER, count=_MAX_LETTERS, wait_seconds=0.0):
                self._take_dead_letter(letter)
            for delivery in await self._take_trees(min(count, _MAX_TREES)):
                self._take_tree(delivery, version)
        except Unavailable:
            self._must_recover = True  # a reply that was lost may have delivered something
            raise

    def drop_stale(self, version: WeightVersion) -> None:
        for task_id, delivery in tuple(self._held.items()):
            if self._is_stale(delivery.item, version):
                del self._held[task_id]
                self._drop(task_id, delivery.entry_id, delivery.item)

    def tree(self, task_id: TaskId) -> ScoredTree:
        """That of a held task."""
        return self._held[task_id].item

    def arrival(self, task_id: TaskId, version: WeightVersion) -> Arrival:
        delivery = self._held[task_id]
        return Arrival(task_id, delivery.item, delivery.item.staleness(version), delivery.entry_id)

    def settle(self, arrivals: Iterable[tuple[Arrival, End]]) -> None:
        """Ends the tasks of a batch: from now on their effect is in the learner's state."""
        for arrival, end in arrivals:
            self._ledger.settle(arrival.task_id, end)
            self._settled_trees.append(arrival.entry_id)
            self._metrics.record_used(arrival.tree)
            del self._held[arrival.task_id]

    async def acknowledge(self, settled: SettledEntries) -> None:
        """Removes from the streams what a checkpoint now contains."""
        await self._streams.trees.acknowledge(settled.trees)
        await self._streams.dead_letters.acknowledge(settled.dead_letters)
        del self._settled_trees[: len(settled.trees)]
        del self._settled_letters[: len(settled.dead_letters)]

    async def _take_trees(self, count: int) -> list[Delivery[ScoredTree | Unreadable]]:
        if self._redelivered:
            entry_ids, self._redelivered = self._redelivered[:count], self._redelivered[count:]
            return await self._streams.trees.redeliver(CONSUMER, entry_ids)
        return await self._streams.trees.take(CONSUMER, count, _WAIT_SECONDS)

    def _take_tree(self, delivery: Delivery[ScoredTree | Unreadable], version: WeightVersion) -> None:
        """Holds a tree that can be used; counts any other."""
        tree, entry_id = delivery.item, delivery.entry_id
        task_id = self._match(tree if isinstance(tree, Unreadable) else tree.task)
        if task_id is None:
            self._settled_trees.append(entry_id)
        elif isinstance(tree, Unreadable):
            self._refuse(task_id, entry_id, tree.complaint)
        elif reason := reject_reason(tree, self._vocab_size):
            self._refuse(task_id, entry_id, reason)
        else:
            self._failures_in_row = 0
            if self._is_stale(tree, version):
                self._drop(task_id, entry_id, tree)
                self._count_stale(tree, version)
            else:
                self._stale_in_row = 0
                self._held[task_id] = Delivery(entry_id, tree)

    def _is_stale(self, tree: ScoredTree, version: WeightVersion) -> bool:
        """Whether weights too many updates away, or weights of no generation of this run, sampled one of its tokens."""
        foreign = {str(sampled) for sampled in tree.versions if sampled.origin not in self._origins()}
        if foreign:
            log.warning("tree_of_foreign_weights", replica=tree.replica, versions=sorted(foreign))
        if self._wants_present_weights and any(sampled != version for sampled in tree.versions):
            return True
        return bool(foreign) or tree.staleness(version) > self._max_staleness

    def _drop(self, task_id: TaskId, entry_id: str, tree: ScoredTree) -> None:
        self._settled_trees.append(entry_id)
        self._metrics.record_stale(tree)
        self._feed.refeed(task_id, End.STALE)

    def _refuse(self, task_id: TaskId, entry_id: str, reason: str) -> None:
        """Ends an attempt whose tree cannot be used; another replica may do better."""
        self._settled_trees.append(entry_id)
        self._metrics.refused.inc()
        log.error("tree_refused", task=str(task_id), reason=reason)
        if not self._feed.refeed(task_id, End.FAILED):
            self._count_failure(reason)

    def _take_dead_letter(self, delivery: Delivery[DeadLetter | Unreadable]) -> None:
        """Ends a task that the replicas gave up."""
        self._settled_letters.append(delivery.entry_id)
        letter = delivery.item
        task_id = self._match(letter if isinstance(letter, Unreadable) else letter.task)
        if task_id is not None:
            self._ledger.settle(task_id, End.FAILED)
            log.error("task_failed", task=str(task_id), reason=letter.reason)
            self._count_failure(letter.reason)

    def _count_stale(self, tree: ScoredTree, version: WeightVersion) -> None:
        self._stale_in_row += 1
        self._stale_reason = (
            f"{tree.replica} grew the last with {tree.oldest_version}, the learner is at {version}; see in that "
            "replica's log why newer weights do not reach it, or raise learner.max_staleness"
        )
        # after a restart, all that was outstanding may rightly be stale
        if self._stale_in_row >= max(_MAX_STALE_IN_ROW, 3 * len(self._ledger.outstanding)):
            raise InvalidInput(self.complaint)

    def _count_failure(self, reason: str) -> None:
        self._failures_in_row += 1
        if self._failures_in_row >= _MAX_FAILURES_IN_ROW:
            raise InvalidInput(f"{self._failures_in_row} tasks in a row failed, the last one: {reason}")

    def _match(self, result: Task | Unreadable) -> TaskId | None:
        """The id of the outstanding attempt that this is the result of; None, and counted, where there is none."""
        try:
            task_id = TaskId.parse(result.id)
            standing = Standing.DUPLICATE if task_id in self._held else self._ledger.standing(task_id, result.attempt)
            # an unreadable result has nothing but its id to compare with the task that this run makes under it
            is_ours = isinstance(result, Unreadable) or self._sequence.task(task_id, result.attempt) == result
        except (InvalidInput, LookupError):
            standing, is_ours = Standing.FOREIGN, False
        if standing is Standing.OUTSTANDING and is_ours:
            return task_id
        if standing is Standing.OUTSTANDING:
            self._feed.resend([task_id])  # another task was grown in the place of this one
        standing = standing if is_ours else Standing.FOREIGN
        self._ledger.count_unmatched(standing)
        log.info("result_unmatched", task=result.id, attempt=result.attempt, standing=standing.value)
        return None
