"""The harvest: claims tasks from the run's stream, grows many trees at once, puts the scored trees on its stream."""

import asyncio
import contextlib
import math

from services.rollout.grower import TooFewVerdicts, TreeGrower
from services.rollout.metrics import RolloutMetrics, TreeResult
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.reward_batcher import RewardBatcher
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.kinds import check_own_code
from shared.protocol.replica import ReplicaState
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff, Periodic, cancel
from shared.streams import Claim, RunStreams, Unreadable

log = event_logger(__name__)
_WAIT_SECONDS = 1.0
_FINISH_SECONDS = 120.0
_OTHERS_READ = Backoff(first_seconds=0.5, most_seconds=10.0)
"""Pauses of a replica that cannot read tasks which others can, or might: they shall take them."""
_NOBODY_READS_SECONDS = 0.5
_HOPEFUL_HEARTBEATS = 8
"""For so long, twice `claim_after_seconds`, somebody who can read tasks may be on the way."""
_RETRY = Backoff(first_seconds=0.1, most_seconds=_WAIT_SECONDS)


class Harvest:
    """Holds at most `max_trees` claims and keeps them alive while their trees grow; every claim ends explicitly."""

    def __init__(
        self,
        streams: RunStreams,
        grower: TreeGrower,
        policy: PolicyReceiver,
        rewards: RewardBatcher,
        metrics: RolloutMetrics,
        *,
        replica: str,
        max_trees: int,
        max_deliveries: int,
        heartbeat_seconds: float,
    ) -> None:
        self._streams = streams
        self._grower = grower
        self._policy = policy
        self._rewards = rewards
        self._metrics = metrics
        self._replica = replica
        self._max_trees = max_trees
        self._max_deliveries = max_deliveries
        self._heartbeat_seconds = heartbeat_seconds
        self._growing: dict[asyncio.Task[None], Claim] = {}
        self._has_capacity = asyncio.Event()
        self._draining = asyncio.Event()
        self._pauses_until = self._hopes_until = -math.inf
        self._num_unread = 0
        self.why_unread = ""
        """Why the last task could not be read; empty where it was."""

    @property
    def trees_in_flight(self) -> int:
        return len(self._growing)

    def loops(self) -> tuple[Periodic, ...]:
        """The loops to run while the service runs. The heartbeat goes on during a drain, whose trees still grow."""
        seconds = self._heartbeat_seconds
        steady = Backoff(seconds, seconds)  # with longer pauses after failures the claims would expire
        return (
            Periodic("harvest", self._claim_tasks, backoff=_RETRY, stop=self._draining),
            Periodic("heartbeat", self._keep_claims_alive, every_seconds=seconds, backoff=steady),
        )

    async def drain(self, grace_seconds: float) -> None:
        """Claims nothing more, waits `grace_seconds` for growing trees, and releases the rest to other replicas."""
        self._draining.set()
        self._has_capacity.set()
        if self._growing:
            await asyncio.wait(self._growing, timeout=grace_seconds)
        unfinished = tuple(self._growing)
        await cancel(unfinished)
        log.info("drained", released=len(unfinished))

    async def give_back(self) -> None:
        """Releases all claims: another replica grows them, or this one once it is ready."""
        await cancel(tuple(self._growing))

    async def _claim_tasks(self) -> None:
        capacity = self._max_trees - len(self._growing)
        if capacity <= 0:
            self._has_capacity.clear()
            await self._has_capacity.wait()
            return
        is_paused = asyncio.get_running_loop().time() < self._pauses_until
        if is_paused or not (self._policy.is_serving and await self._rewards.is_ready()):
            await asyncio.sleep(_WAIT_SECONDS / 4)
            return
        claims = await self._streams.tasks.take(self._replica, capacity, _WAIT_SECONDS)
        # since `take` began; it may even have claimed again what the drain released
        if self._draining.is_set() or self._policy.fault:
            await self._streams.tasks.release(claims)
            return
        for claim in claims:
            growing = asyncio.create_task(self._process(claim))
            self._growing[growing] = claim
            growing.add_done_callback(self._on_end)

    def _on_end(self, growing: asyncio.Task[None]) -> None:
        self._growing.pop(growing)
        self._has_capacity.set()
        self._metrics.trees_in_flight.set(len(self._growing))
        if not growing.cancelled() and (error := growing.exception()):
            log.error("tree_failed", error=repr(error))

    async def _process(self, claim: Claim) -> None:
        """Grows one claimed task and ends the claim: finished, dead letter, or released for another try."""
        self._metrics.trees_in_flight.set(len(self._growing))
        if isinstance(claim.task, Unreadable):
            await self._skip(claim, claim.task.reason, claim.task.body)
            return
        try:
            check_own_code(claim.task.growth.sampler, claim.task.own_code)
        except ValueError as error:
            await self._skip(claim, str(error))
            return
        self.why_unread, self._num_unread = "", 0
        if claim.deliveries > self._max_deliveries:
            await self._give_up(claim, f"{claim.deliveries - 1} deliveries ended without a result")
            return
        try:
            tree = await self._grower.grow(claim.task, self._policy.vocabulary)
            self._metrics.record_tree(tree, await self._grower.figures(tree))
            await self._deliver(claim, tree)
        except InvalidInput as error:
            await self._give_up(claim, str(error))
        except asyncio.CancelledError:
            self._metrics.trees.labels(TreeResult.RELEASED).inc()
            await self._release(claim, failed=False)
            raise
        except Exception as error:  # noqa: BLE001 - one tree must not end the harvest; its claim is released
            await self._fail(claim, error)

    async def _fail(self, claim: Claim, error: Exception) -> None:
        """Releases the claim for another try, here or elsewhere, unless it has had `max_deliveries`. What fails in a
        drain does not count: another replica can grow it."""
        if self._draining.is_set():
            await self._release(claim, failed=False)
            return
        self._metrics.record_failure(is_discarded=isinstance(error, TooFewVerdicts))
        if not isinstance(error, Unavailable | Overloaded):
            log.exception("tree_failed", task=claim.task.id, error=repr(error))
        if claim.deliveries >= self._max_deliveries:
            await self._give_up(claim, f"{claim.deliveries} deliveries failed, the last with: {error!r}")
            return
        log.warning("tree_released", task=claim.task.id, error=str(error))
        await self._release(claim, failed=True)

    async def _skip(self, claim: Claim, reason: str, body: str = "") -> None:
        """Gives the claim back, and pauses, so that another replica takes it: one that has the sampler which the task
        names, or is of another release. Where nobody comes who can read it, it has `max_deliveries` tries."""
        self._metrics.trees.labels(TreeResult.UNREADABLE).inc()
        if reason != self.why_unread:
            log.error("task_unreadable", task=claim.task.id, deliveries=claim.deliveries, reason=reason, body=body)
        self.why_unread = reason
        is_hopeful = await self._is_hopeful()
        if not is_hopeful and claim.deliveries >= self._max_deliveries:
            await self._give_up(claim, f"unreadable in {claim.deliveries} deliveries: {reason}")
            return
        now = asyncio.get_running_loop().time()
        if now >= self._pauses_until:  # tasks that were claimed together make one pause
            self._num_unread += 1
            pause = _OTHERS_READ.pause_seconds(self._num_unread) if is_hopeful else _NOBODY_READS_SECONDS
            self._pauses_until = now + pause
        await self._release(claim, failed=not is_hopeful)

    async def _is_hopeful(self) -> bool:
        """Whether another replica reads the run's tasks, or may soon: one that was killed is started again."""
        now, hopeful_seconds = asyncio.get_running_loop().time(), _HOPEFUL_HEARTBEATS * self._heartbeat_seconds
        is_first = now - self._pauses_until > hopeful_seconds
        if is_first or await self._others_read():
            self._hopes_until = now + hopeful_seconds
        return now < self._hopes_until

    async def _others_read(self) -> bool:
        """Whether another live replica reads the run's tasks, as far as it knows."""
        try:
            live = await self._streams.replicas.live()
        except Unavailable:
            return True
        return any(
            one.reads_tasks and one.state is not ReplicaState.DRAINING for one in live if one.name != self._replica
        )

    async def _deliver(self, claim: Claim, tree: ScoredTree) -> None:
        """Retries while Redis is unreachable, for at most `_FINISH_SECONDS`; then the task grows elsewhere."""
        deadline = asyncio.get_running_loop().time() + _FINISH_SECONDS
        while True:
            try:
                await self._streams.tasks.finish(claim, tree)
                return
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_WAIT_SECONDS)

    async def _give_up(self, claim: Claim, reason: str) -> None:
        self._metrics.trees.labels(TreeResult.DEAD_LETTER).inc()
        log.error("task_given_up", task=claim.task.id, reason=reason)
        with contextlib.suppress(Unavailable):
            await self._streams.tasks.give_up(claim, reason, self._replica)

    async def _release(self, claim: Claim, *, failed: bool) -> None:
        with contextlib.suppress(Unavailable):
            await self._streams.tasks.release([claim], failed=failed)

    async def _keep_claims_alive(self) -> None:
        """The heartbeat. Cancels trees whose claim another replica has taken; their release leaves its claim alone."""
        held = {claim.entry_id: growing for growing, claim in self._growing.items()}
        kept = await self._streams.tasks.keep_alive(self._replica, list(held))
        for entry_id in held.keys() - kept:
            held[entry_id].cancel()
