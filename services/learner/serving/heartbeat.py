"""Shows that the learner is alive: renews the lease, publishes URL and status, polls for stop requests."""

import asyncio
from collections.abc import Callable

from services.learner.ledger import Ledger
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from services.learner.record.progress import Progress
from services.learner.serving.acts import PublishedActs
from services.learner.serving.waiting import describe_wait, why_replicas_bring_nothing
from shared.errors import Conflict, IbtpoError
from shared.protocol.replica import ReplicaInfo
from shared.protocol.status import RunState, RunStatus
from shared.runtime.logs import event_logger
from shared.runtime.loops import Periodic
from shared.streams import Depth, RunStreams

log = event_logger(__name__)
_STATUS_SECONDS = 1.0
_RENEW_SECONDS = 5.0
_SILENT_SECONDS = 30.0


def describe_silence(seconds: float, outstanding: int, tasks: Depth, trees: Depth) -> str:
    """Where the tasks are that nothing has come back of for so long."""
    where = f"{tasks.queued} wait for a replica, {tasks.pending} are being grown, {trees.queued} trees wait"
    if not (tasks.queued or tasks.pending or trees.queued):
        where = "none is on the streams: something else empties them, or Redis lost them; they are sent again"
    return f"no tree has come for {seconds:.0f} s; {outstanding} tasks are out, {where}"


class LearnerHeartbeat:
    """Beats while the learner holds the lease. Calls `on_stop` when a stop is requested, `on_loss` when another learner
    has taken the run. `silent_seconds` says how long it has waited for trees of which none came, `acts` which replicas
    have weights that do not act as published, `stale_trees` what is wrong where stale ones alone come, `trackers` what
    is wrong with those."""

    def __init__(
        self,
        streams: RunStreams,
        progress: Progress,
        ledger: Ledger,
        url: Callable[[], str],
        on_stop: Callable[[], None],
        on_loss: Callable[[Conflict], None],
        silent_seconds: Callable[[], float],
        acts: PublishedActs,
        stale_trees: Callable[[], str] = str,
        process_group: ProcessGroup = SINGLE_PROCESS,
        trackers: Callable[[], str] = str,
    ) -> None:
        self._streams = streams
        self._progress = progress
        self._ledger = ledger
        self._url = url
        self._on_stop = on_stop
        self._on_loss = on_loss
        self._silent_seconds = silent_seconds
        self._acts = acts
        self._stale_trees = stale_trees
        self._process_group = process_group
        self._trackers = trackers
        self._acts = acts
        self._is_silent = False
        self._replicas: list[ReplicaInfo] = []
        self._tasks = Depth(0, 0)
        self._trees = Depth(0, 0)
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to beat; the lease must be held."""
        loops = (
            Periodic("status", self._beat, every_seconds=_STATUS_SECONDS),
            Periodic("lease", self._renew, every_seconds=_RENEW_SECONDS),
        )
        self._running = [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]

    async def stop(self) -> None:
        """Publishes the last status and releases the lease, unless the run is another learner's now."""
        self._cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        try:
            await self._streams.lease.renew()
            await self._streams.status_keys.publish(self.status())
            await self._streams.lease.release()
        except IbtpoError as error:
            log.warning("last_status_not_published", error=str(error))

    def status(self) -> RunStatus:
        """The run's status, with replicas and queues as of the last beat."""
        status = self._progress.status(self._ledger.accounts, self._replicas, self._tasks, self._trees)
        progress, acts = self._progress, self._acts
        complaint = self._complaint()
        warning = complaint or acts.complaint or progress.warning or self._trackers()
        return status.model_copy(
            update={
                "message": status.message or warning or progress.note,
                "waiting_for": describe_wait(progress.waits.current, self._replicas, complaint, status.run),
                "rank_silent_seconds": self._process_group.silent_seconds,
                "acts": acts.readings,
                "act_tolerance": acts.tolerance,
                "replicas": tuple(
                    one.model_copy(update={"act": one.act and one.act.brief()}) for one in self._replicas
                ),
            }
        )

    def _complaint(self) -> str:
        """Why the run stands still: a rank does, or no usable trees arrive, and where the tasks are; else empty."""
        if known := self._process_group.complaint or self._stale_trees():
            return known
        is_waiting = self._progress.state in (RunState.TRAINING, RunState.EVALUATING)
        if is_waiting and any(one.problem for one in self._replicas):
            reason, _ = why_replicas_bring_nothing(self._replicas, self._streams.run)
            if reason:
                return reason
        seconds = self._silent_seconds()
        if seconds < _SILENT_SECONDS:
            return ""
        return describe_silence(seconds, len(self._ledger.outstanding), self._tasks, self._trees)

    async def _beat(self) -> None:
        await self._streams.status_keys.announce_learner(self._url())
        self._replicas = list(await self._streams.replicas.live())
        self._acts.compare(self._replicas)
        self._tasks = await self._streams.tasks.depth()
        self._trees = await self._streams.trees.depth()
        complaint = self._complaint()
        if complaint and not self._is_silent:
            log.warning("run_stands_still", reason=complaint)  # once, when it begins
        self._is_silent = bool(complaint)
        await self._streams.status_keys.publish(self.status())
        if await self._streams.status_keys.is_stop_requested():
            self._on_stop()

    async def _renew(self) -> None:
        try:
            await self._streams.lease.renew()
        except Conflict as error:
            self._on_loss(error)
            self._cancel()

    def _cancel(self) -> None:
        for loop in self._running:
            loop.cancel()
