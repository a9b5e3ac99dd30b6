"""Watches whether the served weights act as published, and has those that do not loaded afresh."""

import asyncio
from collections.abc import Awaitable, Callable

from services.rollout.act_probe.reading import read_act
from services.rollout.engines.engine import Engine
from services.rollout.metrics import ActResult, RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from shared.errors import IbtpoError
from shared.protocol.act_probe import ActReading, act_distance, find_fault
from shared.protocol.status import RunStatus
from shared.runtime.logs import event_logger
from shared.runtime.loops import Periodic
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
_LOOK_SECONDS = 0.25
_ASK_SECONDS = 0.5
"""Between looks at the run's status, while it may soon say what the learner read."""
AGAIN_SECONDS = 10.0
"""Between two readings of the same weights: memory may change after a load, and an engine may restart."""
_READ_SECONDS = 60.0
"""Deadline of one reading; a busy engine has it wait."""


class ActWatch:
    """Reads the act-probe after each load, and every ten seconds. Where the weights do not act as the learner's do,
    the replica is not ready and gives its claims back, and loads them afresh, once for each version."""

    def __init__(
        self,
        engine: Engine,
        policy: PolicyReceiver,
        metrics: RolloutMetrics,
        *,
        read_status: Callable[[], Awaitable[RunStatus | None]],
        give_back_claims: Callable[[], Awaitable[None]],
        again_seconds: float,
        read_seconds: float = _READ_SECONDS,
    ) -> None:
        self.reading: ActReading | None = None
        """Of the served weights; None before the first."""
        self._engine = engine
        self._policy = policy
        self._metrics = metrics
        self._read_status = read_status
        self._give_back_claims = give_back_claims
        self._again_seconds = again_seconds
        self._read_seconds = read_seconds
        self._of_version: WeightVersion | None = None
        self._read_at = self._asked_at = float("-inf")
        self._published: dict[WeightVersion, ActReading] = {}
        self._tolerance: float | None = None
        self._is_compared = False
        self._loaded_afresh: WeightVersion | None = None
        self._why_unread = ""

    def loop(self) -> Periodic:
        """The loop to run while the service lives."""
        return Periodic("act_probe", self.look, every_seconds=_LOOK_SECONDS)

    async def look(self) -> None:
        """Reads where that is due, and compares a new reading as soon as the learner's is known."""
        served = self._engine.version
        if served is None:
            return
        if served != self._of_version or _now() - self._read_at >= self._again_seconds:
            await self._read(served)
        if self.reading is not None and not self._is_compared:
            await self._compare(self.reading)

    async def _read(self, served: WeightVersion) -> None:
        self._of_version, self._read_at, self._is_compared = served, _now(), False
        try:
            async with asyncio.timeout(self._read_seconds):
                self.reading = await read_act(self._engine, served)
        except (IbtpoError, TimeoutError) as error:
            self.reading = None
            self._metrics.act_readings.labels(ActResult.FAILED).inc()
            reason = str(error) or f"no answer within {self._read_seconds:g} s"
            if reason != self._why_unread:
                log.warning("act_probe_failed", version=str(served), reason=reason)  # once; it is tried again
            self._why_unread = reason
            return
        self._why_unread = ""
        self._metrics.act_readings.labels(ActResult.READ).inc()

    async def _compare(self, reading: ActReading) -> None:
        published = await self._published_of(reading.version)
        if published is None or reading.version != self._engine.version:  # others serve by now, and are read next
            return
        self._is_compared = True
        if (distance := act_distance(published, reading)) is not None:
            self._metrics.act_distance.set(distance)
        fault = find_fault(published, reading, self._tolerance)
        if fault:
            await self._mend(reading.version, fault)
        else:
            self._policy.trust()

    async def _published_of(self, version: WeightVersion) -> ActReading | None:
        """The learner's reading of that version; None while it is not known."""
        if version.generation and version not in self._published and _now() - self._asked_at >= _ASK_SECONDS:
            self._asked_at = _now()
            try:
                status = await self._read_status()
            except IbtpoError:  # Redis is away, or its status is of another release
                return None
            if status is not None:
                self._published = {one.version: one for one in status.acts}
                self._tolerance = status.act_tolerance
        return self._published.get(version)

    async def _mend(self, version: WeightVersion, fault: str) -> None:
        """Stops their use, and loads them afresh, unless that was done."""
        is_first = self._loaded_afresh != version
        self._policy.distrust(fault if is_first else f"{fault}; they were loaded afresh, and still do not")
        if not is_first:
            return
        self._metrics.weight_faults.inc()
        log.error("weights_do_not_act", version=str(version), reason=fault)
        await self._give_back_claims()
        self._loaded_afresh, self._of_version = version, None  # whatever is served next is read at once
        try:
            await self._policy.load_afresh(version)
        except IbtpoError as error:
            log.error("weights_not_loaded_afresh", version=str(version), reason=str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
