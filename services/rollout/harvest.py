"""The harvest: takes tasks from the run's stream, grows many trees at once, hands the scored trees back."""

import asyncio
import contextlib

from services.rollout.grower import TooFewVerdicts, TreeGrower
from services.rollout.metrics import RolloutMetrics, TreeResult
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.reward_batcher import RewardBatcher
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff, Periodic
from shared.streams import Claim, RunStreams, Unreadable

log = event_logger(__name__)
_WAIT_SECONDS = 1.0
_HAND_OVER_SECONDS = 120.0
_RETRY = Backoff(first_seconds=0.1, most_seconds=_WAIT_SECONDS)


class Harvest:
    """Holds at most `max_trees` claims, keeps them alive while their trees grow, and gives up none silently."""

    def __init__(
        self,
        streams: RunStreams,
        grower: TreeGrower,
        policy: PolicyReceiver,
        verifier: RewardBatcher,
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
        self._verifier = verifier
        self._metrics = metrics
        self._replica = replica
        self._max_trees = max_trees
        self._max_deliveries = max_deliveries
        self._heartbeat_seconds = heartbeat_seconds
        self._growing: dict[asyncio.Task[None], Claim] = {}
        self._room = asyncio.Event()
        self._draining = asyncio.Event()

    @property
    def trees_in_flight(self) -> int:
        """Trees that are being grown for the stream now."""
        return len(self._growing)

    def loops(self) -> tuple[Periodic, ...]:
        """The loops to run while the service lives. The heartbeat outlasts a drain: its trees are still growing."""
        seconds = self._heartbeat_seconds
        steady = Backoff(seconds, seconds)  # claims lapse behind a heartbeat that takes longer pauses
        return (
            Periodic("harvest", self._take_some, backoff=_RETRY, stop=self._draining),
            Periodic("heartbeat", self._keep_claims_alive, every_seconds=seconds, backoff=steady),
        )

    async def drain(self, grace_seconds: float) -> None:
        """Takes nothing more; finishes what it can in time and releases the rest for others to claim at once."""
        self._draining.set()
        self._room.set()
        if self._growing:
            await asyncio.wait(self._growing, timeout=grace_seconds)
        unfinished = dict(self._growing)
        for growing in unfinished:
            growing.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        log.info("drained", released=len(unfinished))

    async def _take_some(self) -> None:
        room = self._max_trees - len(self._growing)
        if room <= 0:
            self._room.clear()
            await self._room.wait()
            return
        if not (self._policy.is_serving and await self._verifier.is_ready()):
            await asyncio.sleep(_WAIT_SECONDS / 4)
            return
        for claim in await self._streams.tasks.take(self._replica, room, _WAIT_SECONDS):
            growing = asyncio.create_task(self._tend(claim))
            self._growing[growing] = claim
            growing.add_done_callback(self._tended)

    def _tended(self, growing: asyncio.Task[None]) -> None:
        self._growing.pop(growing)
        self._room.set()
        self._metrics.trees_in_flight.set(len(self._growing))
        if not growing.cancelled() and (error := growing.exception()):
            log.error("tree_failed", error=repr(error))

    async def _tend(self, claim: Claim) -> None:
        """Grows one claimed task and ends the claim: finished, buried, or released to be tried again."""
        self._metrics.trees_in_flight.set(len(self._growing))
        if isinstance(claim.task, Unreadable):
            await self._pass_over(claim, claim.task)
            return
        if claim.deliveries > self._max_deliveries:
            await self._bury(claim, f"{claim.deliveries - 1} deliveries ended without a word")
            return
        try:
            tree = await self._grower.grow(claim.task, self._policy.vocabulary)
            self._metrics.record_tree(tree)
            await self._hand_over(claim, tree)
        except InvalidInput as error:
            await self._bury(claim, str(error))
        except asyncio.CancelledError:
            self._metrics.trees.labels(TreeResult.RELEASED).inc()
            await self._release(claim, failed=False)
            raise
        except Exception as error:  # noqa: BLE001 - a tree's border: whatever ended it, its claim is given back
            await self._give_back(claim, error)

    async def _give_back(self, claim: Claim, error: Exception) -> None:
        """Another, or this replica later, tries again, until there were enough tries."""
        self._metrics.record_failure(is_discarded=isinstance(error, TooFewVerdicts))
        if not isinstance(error, Unavailable | Overloaded):
            log.exception("tree_failed", task=claim.task.id, error=repr(error))
        if claim.deliveries >= self._max_deliveries:
            await self._bury(claim, f"{claim.deliveries} deliveries failed, the last with: {error!r}")
            return
        log.warning("tree_released", task=claim.task.id, error=str(error))
        await self._release(claim, failed=True)

    async def _pass_over(self, claim: Claim, task: Unreadable) -> None:
        """Lets the claim lapse: a replica of another release may be able to read it. In the end nobody is."""
        self._metrics.trees.labels(TreeResult.UNREADABLE).inc()
        log.error("task_unreadable", task=task.id, deliveries=claim.deliveries, reason=task.reason)
        if claim.deliveries >= self._max_deliveries:
            await self._bury(claim, f"unreadable in {claim.deliveries} deliveries: {task.reason}")

    async def _hand_over(self, claim: Claim, tree: ScoredTree) -> None:
        """Outlasts a Redis that is away for a while; after that the claim lapses and another grows the task."""
        deadline = asyncio.get_running_loop().time() + _HAND_OVER_SECONDS
        while True:
            try:
                await self._streams.tasks.finish(claim, tree)
                return
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_WAIT_SECONDS)

    async def _bury(self, claim: Claim, reason: str) -> None:
        self._metrics.trees.labels(TreeResult.DEAD_LETTER).inc()
        log.error("task_buried", task=claim.task.id, reason=reason)
        with contextlib.suppress(Unavailable):
            await self._streams.tasks.bury(claim, reason, self._replica)

    async def _release(self, claim: Claim, *, failed: bool) -> None:
        with contextlib.suppress(Unavailable):
            await self._streams.tasks.release([claim], failed=failed)

    async def _keep_claims_alive(self) -> None:
        """The heartbeat. What another has claimed meanwhile is given up; its release touches nothing of the other's."""
        held = {claim.entry_id: growing for growing, claim in self._growing.items()}
        kept = await self._streams.tasks.keep_alive(self._replica, list(held))
        for entry_id in held.keys() - kept:
            held[entry_id].cancel()
