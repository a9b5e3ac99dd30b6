"""Feeds tasks to the rollout replicas up to the run's capacity, and restores tasks that Redis lost."""

from collections.abc import Callable, Collection, Iterable

from services.learner.ledger import End, Ledger, TaskId
from services.learner.queue.task_sequence import TaskSequence
from shared.protocol.task import Task
from shared.runtime.logs import event_logger
from shared.streams import RunStreams

log = event_logger(__name__)
_MAX_GAP = 256


class Feed:
    """Feeds tasks in order while fewer than `capacity()` are outstanding.

    A task is outstanding before it is on the stream. While Redis is away it waits here, and at worst it is sent twice,
    which the ledger counts as a duplicate.
    """

    def __init__(
        self, streams: RunStreams, sequence: TaskSequence, ledger: Ledger, capacity: Callable[[], int]
    ) -> None:
        self._streams = streams
        self._sequence = sequence
        self._ledger = ledger
        self._capacity = capacity
        self._unsent: list[Task] = []
        self._missing: set[tuple[str, int]] = set()
        self._checked_incarnation = ""
        """The server's incarnation in which no task was missing; only a new one can have lost some."""

    async def top_up(self) -> None:
        """Feeds up to the capacity. Raises Unavailable while Redis is away; call it again then."""
        capacity = self._capacity()
        while len(self._ledger.outstanding) < capacity:
            self._unsent.append(self._feed_next())
        if sending := self._unsent:
            await self._streams.tasks.put(sending)
            self._unsent = []

    def refeed(self, task_id: TaskId, end: End) -> bool:
        """Ends an attempt; the next `top_up` sends the next one. False after the last attempt."""
        attempt = self._ledger.refeed(task_id, end)
        if attempt is None:
            return False
        self._unsent.append(self._sequence.task(task_id, attempt))
        return True

    def resend(self, task_ids: Iterable[TaskId]) -> None:
        """Sends outstanding tasks again, as they are made now, under the same attempt."""
        self._unsent += [self._sequence.task(task_id, self._ledger.outstanding[task_id]) for task_id in task_ids]

    async def catch_up(self) -> None:
        """After a restart: advances the ledger over the tasks that were fed after the checkpoint."""
        on_streams = {name for name, _ in await self._read_ids()}
        last = self._last_fed(on_streams)
        while last is not None and self._ledger.cursor <= last:
            task = self._feed_next()
            if task.id not in on_streams:
                self._unsent.append(task)
        log.info("caught_up", outstanding=len(self._ledger.outstanding), on_streams=len(on_streams))

    def _last_fed(self, on_streams: Collection[str]) -> TaskId | None:
        """The last task on the streams, from the cursor on. An id far ahead of all others is not this run's."""
        last, task_id, gap = None, self._ledger.cursor, 0
        while gap < _MAX_GAP:
            gap += 1
            if str(task_id) in on_streams:
                last, gap = task_id, 0
            task_id = self._sequence.successor(task_id)
        return last

    async def restore_lost(self, held: Collection[TaskId]) -> None:
        """After Redis restarted or lost data, and where the streams are empty: sends outstanding tasks again that were
        on no stream at two checks in a row. `held` tasks have arrived."""
        incarnation = await self._streams.incarnation()
        if incarnation == self._checked_incarnation and not await self._is_all_gone(held):
            return
        present = await self._read_ids() | {(task.id, task.attempt) for task in self._unsent}
        expected = {
            (str(task_id), attempt) for task_id, attempt in self._ledger.outstanding.items() if task_id not in held
        }
        missing = expected - present
        lost = missing & self._missing
        self._missing = missing - lost
        if not self._missing:
            self._checked_incarnation = incarnation
        if lost:
            log.warning("lost_tasks_restored", tasks=len(lost))
            self.resend(TaskId.parse(name) for name, _ in sorted(lost))

    async def _is_all_gone(self, held: Collection[TaskId]) -> bool:
        """Whether work is out of which nothing is on the streams: something has removed it."""
        if self._unsent or len(self._ledger.outstanding) <= len(held):
            return False
        tasks, trees = await self._streams.tasks.depth(), await self._streams.trees.depth()
        return not (tasks.queued or tasks.pending or trees.queued)

    async def _read_ids(self) -> set[tuple[str, int]]:
        """(id, attempt) of everything on the streams. Tasks are read first: one that becomes a tree meanwhile is then
        seen twice, not missed."""
        tasks = await self._streams.tasks.ids()
        trees = await self._streams.trees.ids()
        return tasks | trees | await self._streams.dead_letters.ids()

    def _feed_next(self) -> Task:
        task_id = self._ledger.cursor
        self._ledger.feed(task_id, self._sequence.successor(task_id))
        return self._sequence.task(task_id)
