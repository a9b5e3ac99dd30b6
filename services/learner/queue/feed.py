"""Feeds tasks to the rollout replicas while there is credit, and feeds again what was lost on the way."""

from collections.abc import Callable, Collection

from services.learner.ledger import End, Ledger, TaskId
from services.learner.queue.task_sequence import Curriculum
from shared.protocol.task import Task
from shared.runtime.logs import event_logger
from shared.streams import RunStreams

log = event_logger(__name__)
_MAX_GAP = 256


class Feed:
    """Mints tasks in order, as long as fewer than `limit()` are outstanding.

    A task counts as fed before it is on the stream: when Redis is away in between, it is sent later, and at worst
    twice, which the books see as a duplicate.
    """

    def __init__(self, streams: RunStreams, curriculum: Curriculum, ledger: Ledger, limit: Callable[[], int]) -> None:
        self._streams = streams
        self._curriculum = curriculum
        self._ledger = ledger
        self._limit = limit
        self._unsent: list[Task] = []
        self._missing: set[tuple[str, int]] = set()
        self._whole = ""
        """The incarnation of the server in which nothing was missing: only another can have lost something."""

    async def top_up(self) -> None:
        """Feeds until there is no credit left. Raises Unavailable, to be called again, while Redis is away."""
        while len(self._ledger.outstanding) < self._limit():
            self._unsent.append(self._mint())
        await self._send()

    def feed_again(self, task_id: TaskId, end: End) -> bool:
        """Ends a feeding; the task goes out again with the next `top_up`. False when it has been so too often."""
        attempt = self._ledger.refeed(task_id, end)
        if attempt is None:
            return False
        self._unsent.append(self._curriculum.task(task_id, attempt))
        return True

    async def catch_up(self) -> None:
        """After a restart: the books go on past what an abandoned life had fed and left on the streams."""
        on_stream = {name for name, _ in await self._present()}
        last = self._last_fed(on_stream)
        while last is not None and self._ledger.cursor <= last:
            task = self._mint()
            if task.id not in on_stream:
                self._unsent.append(task)
        log.info("caught_up", outstanding=len(self._ledger.outstanding), on_stream=len(on_stream))

    def _last_fed(self, on_stream: Collection[str]) -> TaskId | None:
        """The last task from the cursor on that was fed already. All that was fed is there, but for what Redis lost: an
        id that lies far ahead of the others is a stranger's."""
        last, task_id, gap = None, self._ledger.cursor, 0
        while gap < _MAX_GAP:
            gap += 1
            if str(task_id) in on_stream:
                last, gap = task_id, 0
            task_id = self._curriculum.following(task_id)
        return last

    async def restore_lost(self, held: Collection[TaskId]) -> None:
        """After a restart of the server or a loss of data: puts back tasks that are out but were on no stream at two
        looks in a row; `held` ones have arrived."""
        incarnation = await self._streams.incarnation()
        if incarnation == self._whole:
            return
        present = await self._present() | {(task.id, task.attempt) for task in self._unsent}
        out = {(str(task_id), attempt) for task_id, attempt in self._ledger.outstanding.items() if task_id not in held}
        missing = out - present
        lost = missing & self._missing
        self._missing = missing - lost
        if not self._missing:
            self._whole = incarnation
        if lost:
            log.warning("lost_tasks_restored", tasks=len(lost))
            self._unsent += [self._curriculum.task(TaskId.parse(name), attempt) for name, attempt in sorted(lost)]

    async def _present(self) -> set[tuple[str, int]]:
        """What is on a stream. Tasks first: what moves between the looks is then seen twice, not never."""
        tasks = await self._streams.tasks.ids()
        trees = await self._streams.trees.ids()
        return tasks | trees | await self._streams.dead_letters.ids()

    def _mint(self) -> Task:
        task_id = self._ledger.cursor
        self._ledger.feed(task_id, self._curriculum.following(task_id))
        return self._curriculum.task(task_id)

    async def _send(self) -> None:
        if sending := self._unsent:
            await self._streams.tasks.put(sending)
            self._unsent = []
