"""The learner's part in its run while it lives: the lease, its address, its status, and the ear for a stop."""

import asyncio
from collections.abc import Callable

from shared.errors import Conflict, IbtpoError
from shared.protocol.replica import ReplicaInfo
from shared.protocol.status import RunStatus
from shared.runtime.logs import event_logger
from shared.runtime.loops import Periodic
from shared.streams import Depth, RunStreams

log = event_logger(__name__)
_STATUS_SECONDS = 1.0
_RENEW_SECONDS = 5.0


class Presence:
    """Keeps the run's board and lease fresh. `on_stop` hears a stop that was asked for, `on_loss` that another
    learner has taken the run over."""

    def __init__(
        self,
        streams: RunStreams,
        url: Callable[[], str],
        status: Callable[[], RunStatus],
        on_stop: Callable[[], None],
        on_loss: Callable[[Conflict], None],
    ) -> None:
        self._streams = streams
        self._url = url
        self._status = status
        self._on_stop = on_stop
        self._on_loss = on_loss
        self._replicas: tuple[ReplicaInfo, ...] = ()
        self._tasks = Depth(0, 0)
        self._trees = Depth(0, 0)
        self._running: list[asyncio.Task[None]] = []

    def join(self) -> None:
        """Begins, once the lease is held."""
        loops = (
            Periodic("status", self._show, every_seconds=_STATUS_SECONDS),
            Periodic("lease", self._renew, every_seconds=_RENEW_SECONDS),
        )
        self._running = [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]

    async def leave(self) -> None:
        """Ends, with the run's last word on its board and the lease free; without a word where the run is another's."""
        self._fall_silent()
        await asyncio.gather(*self._running, return_exceptions=True)
        try:
            await self._streams.lease.renew()
            await self._streams.board.publish(self.status())
            await self._streams.lease.release()
        except IbtpoError as error:
            log.warning("left_without_a_word", error=str(error))

    def status(self) -> RunStatus:
        """The run's status, with what was last seen of its replicas and queues."""
        return self._status().model_copy(
            update={
                "replicas": self._replicas,
                "queued_tasks": self._tasks.queued,
                "pending_tasks": self._tasks.pending,
                "queued_trees": self._trees.queued,
            }
        )

    async def _show(self) -> None:
        await self._streams.board.announce_learner(self._url())
        self._replicas = tuple(await self._streams.replicas.live())
        self._tasks = await self._streams.tasks.depth()
        self._trees = await self._streams.trees.depth()
        await self._streams.board.publish(self.status())
        if await self._streams.board.stop_requested():
            self._on_stop()

    async def _renew(self) -> None:
        try:
            await self._streams.lease.renew()
        except Conflict as error:
            self._on_loss(error)
            self._fall_silent()

    def _fall_silent(self) -> None:
        for loop in self._running:
            loop.cancel()
