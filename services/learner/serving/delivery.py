"""Offers new weights to every live replica, each at its own pace, and knows who is behind."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from services.learner.metrics import LearnerMetrics, PushResult
from services.learner.waits import Wait
from shared.clients import RolloutClient
from shared.errors import Conflict, DeadlineExceeded, IbtpoError, Unavailable
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.weights import Base, Offer
from shared.runtime.logs import event_logger
from shared.runtime.loops import cancel
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot

log = event_logger(__name__)
_BYTES_PER_SECOND = 20 << 20
"""What the slowest link carries that is waited for: the share of each of 60 replicas in 10 Gbit/s."""
_LOOK_SECONDS = 1.0
"""How soon it is seen that a replica, whose offer is still open, is gone."""


@dataclass(slots=True, eq=False)
class _Receiver:
    """One replica, as far as it is known here."""

    replica: ReplicaInfo
    base: Base | None = None
    """What it said to serve when it answered an offer."""
    is_late: bool = False
    """It missed a deadline and has not caught up since."""
    is_live: bool = True
    """It announced itself when that was last looked at."""
    offers: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        return self.offers is not None and not self.offers.done()

    def number(self, origin: str) -> int | None:
        """The newest update that it serves of the versions of one origin."""
        versions = (self.replica.version, self.base.version if self.base else None)
        return max((one.number for one in versions if one and one.origin == origin), default=None)


@dataclass(frozen=True, slots=True)
class _Delivered:
    """A version on its way, and who is still to take it or a newer one."""

    version: WeightVersion
    stepped: float
    open: set[str] = field(default_factory=set)


class WeightDelivery:
    """One task per live replica offers it the newest version: a slow one delays no other, and goes from the version
    that it takes now to the newest then. One that fails fetches the weights by itself, and is offered the next."""

    def __init__(
        self,
        streams: RunStreams,
        http: httpx.AsyncClient,
        metrics: LearnerMetrics,
        publish_seconds: float,
    ) -> None:
        self._streams = streams
        self._http = http
        self._metrics = metrics
        self._publish_seconds = publish_seconds
        self._newest: Snapshot | None = None
        self._size_for: Callable[[Base | None], int] = lambda _: 0
        self._receivers: dict[str, _Receiver] = {}
        self._deliveries: list[_Delivered] = []
        self._begin: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    def offer(self, snapshot: Snapshot, size_for: Callable[[Base | None], int], stepped: float) -> None:
        """Has all live replicas take this version, the newest, and returns at once. `size_for`: how many bytes a
        replica must take that has some base; `stepped`: when the optimizer made these weights (time.monotonic)."""
        self._newest, self._size_for = snapshot, size_for
        self._begin = asyncio.create_task(self._offer_to_all(_Delivered(snapshot.version, stepped), self._begin))

    def deadline_seconds(self, num_bytes: int) -> float:
        """Within how long a replica takes so many bytes."""
        return self._publish_seconds + num_bytes / _BYTES_PER_SECOND

    async def settle(self, wait: Wait) -> None:
        """Waits until every replica serves the newest version, or has failed to take it. Not for those that are gone or
        late."""
        if self._begin is not None:
            await asyncio.wait({self._begin})
        total = None
        while under_way := [one for one in await self._live_receivers() if one.is_under_way and not one.is_late]:
            if total is None:
                total = len(under_way)
                wait.begin(0, total)
            wait.reach(max(0, total - len(under_way)))
            await self._until_moved(under_way, wait)

    async def behind(self, at_least: WeightVersion) -> list[_Receiver]:
        """The live replicas that serve an older version of the same origin, and are not late."""
        behind = []
        for one in await self._live_receivers():
            number = one.number(at_least.origin)
            if number is not None and number >= at_least.number:
                one.is_late = False
            elif number is not None and not one.is_late:
                behind.append(one)
        return behind

    def lag(self, begun: WeightVersion) -> int:
        """How many updates older than `begun`, the last version that was copied, the oldest weights are that a replica
        serves to which newer ones are on their way. Not for those that are gone or late, or serve none of this origin.
        """
        is_offered = self._newest is not None and self._newest.version == begun
        is_asked = is_offered and (self._begin is None or self._begin.done())
        known = (one for one in self._receivers.values() if one.is_live and not one.is_late)
        awaited = (one for one in known if one.is_under_way or not is_asked)
        numbers = [number for one in awaited if (number := one.number(begun.origin)) is not None]
        return max((begun.number - number for number in numbers), default=0)

    async def keep_up(self, at_least: WeightVersion, wait: Wait) -> None:
        """Waits while replicas that are `behind` are taking newer weights, up to the deadlines of these."""
        if self._begin is not None:
            await asyncio.wait({self._begin})
        while under_way := [one for one in await self.behind(at_least) if one.is_under_way]:
            await self._until_moved(under_way, wait)

    async def close(self) -> None:
        """Gives up what is on its way."""
        begun = [self._begin] if self._begin else []
        await cancel(begun)
        await cancel([one.offers for one in self._receivers.values() if one.offers])

    async def _until_moved(self, under_way: Iterable[_Receiver], wait: Wait) -> None:
        names = sorted(one.replica.name for one in under_way)
        wait.detail = lambda: f"not yet: {', '.join(names)}"
        self._moved.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), _LOOK_SECONDS)

    async def _live_receivers(self) -> list[_Receiver]:
        """Of replicas that announce themselves and take weights; none while Redis is away."""
        try:
            live = await self._streams.replicas.live()
        except Unavailable as error:
            log.warning("replicas_unknown", error=str(error))
            return []
        names = {one.name for one in live}
        self._receivers = {name: one for name, one in self._receivers.items() if name in names or one.is_under_way}
        for name, one in self._receivers.items():
            one.is_live = name in names
        return [self._receiver(one) for one in live if one.state is not ReplicaState.DRAINING]

    def _receiver(self, replica: ReplicaInfo) -> _Receiver:
        receiver = self._receivers.setdefault(replica.name, _Receiver(replica))
        receiver.replica = replica
        return receiver

    async def _offer_to_all(self, delivered: _Delivered, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        receivers = await self._live_receivers()
        delivered.open.update(one.replica.name for one in receivers)
        if receivers:
            self._deliveries.append(delivered)
        for one in receivers:
            if not one.is_under_way:
                one.offers = asyncio.create_task(self._bring_up_to_date(one))

    async def _bring_up_to_date(self, receiver: _Receiver) -> None:
        """Offers the newest version until the replica serves it, or fails to."""
        name, offered = receiver.replica.name, None
        try:
            while self._newest is not None and self._newest is not offered:
                offered = self._newest
                if not await self._offer_to(receiver, offered):
                    break
                self._close_deliveries(name, offered.version)
        finally:
            self._close_deliveries(name, None)

    async def _offer_to(self, receiver: _Receiver, snapshot: Snapshot) -> bool:
        """Whether the replica serves the snapshot now, or a newer one."""
        replica, result = receiver.replica, PushResult.LOADED
        offer = Offer(version=snapshot.version, content_hash=snapshot.manifest.content_hash)
        said = {"replica": replica.name, "version": str(offer.version)}
        seconds = round(self.deadline_seconds(self._size_for(receiver.base)), 1)
        try:
            await RolloutClient(self._http, replica.url, replica.name).offer_weights(offer, seconds)
            receiver.base = snapshot.manifest.base
        except Unavailable as error:
            receiver.is_late |= isinstance(error, DeadlineExceeded)
            result = PushResult.UNREACHABLE
            log.warning("push_failed", **said, within_seconds=seconds, error=str(error))
        except IbtpoError as error:
            result = PushResult.SUPERSEDED if isinstance(error, Conflict) else PushResult.REFUSED
            log.error("push_refused", **said, error=str(error))
        self._metrics.pushes.labels(result).inc()
        return result is PushResult.LOADED

    def _close_deliveries(self, name: str, version: WeightVersion | None) -> None:
        """A replica serves `version`; None: it takes nothing any more."""
        self._moved.set()
        for one in list(self._deliveries):
            if version is None or one.version <= version:
                one.open.discard(name)
            if not one.open:
                self._deliveries.remove(one)
                self._metrics.delivery_seconds.observe(time.monotonic() - one.stepped)
