"""Whether replicas' weights act as the learner's: its own readings of the act-probe, and the replicas that differ."""

from collections import OrderedDict
from collections.abc import Iterable

from services.learner.metrics import LearnerMetrics
from services.learner.ranks import RankWorkers
from shared.protocol.act_probe import ActReading, find_fault
from shared.protocol.replica import ReplicaInfo
from shared.runtime.logs import event_logger
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
_KEPT_VERSIONS = 8
"""A replica may be some updates behind, and says so a second later."""


class PublishedActs:
    """The learner's readings of the last published versions (METHOD, W-2)."""

    def __init__(self, metrics: LearnerMetrics, tolerance: float | None = None) -> None:
        self.tolerance = tolerance
        self._metrics = metrics
        self._readings: OrderedDict[WeightVersion, ActReading] = OrderedDict()
        self._faults: dict[str, str] = {}

    @property
    def readings(self) -> tuple[ActReading, ...]:
        """The oldest first."""
        return tuple(self._readings.values())

    @property
    def complaint(self) -> str:
        """Which replicas' weights do not act as published; empty if all do, as far as is known."""
        return "; ".join(f"replica {name}: {fault}" for name, fault in sorted(self._faults.items()))

    def read(self, ranks: RankWorkers, version: WeightVersion) -> None:
        """Has the ranks score the act-probe with the weights that are published as `version`. In the torch thread."""
        try:
            reading = ranks.read_act(version)
        except Exception as error:  # of whatever kind, it must not end the run
            if ranks.size > 1:  # the others wait in the midst of the pass
                raise
            log.warning("act_probe_failed", version=str(version), error=repr(error))
            return
        if reading is None:
            return
        if reading.logprob is None:
            log.error("act_probe_not_finite", version=str(version))
        self._readings[version] = reading
        while len(self._readings) > _KEPT_VERSIONS:
            self._readings.popitem(last=False)

    def compare(self, replicas: Iterable[ReplicaInfo]) -> None:
        """Takes note of the replicas whose weights do not act as published."""
        faults = {one.name: fault for one in replicas if (fault := self._fault_of(one))}
        for name in faults.keys() - self._faults.keys():
            self._metrics.weight_faults.inc()
            log.error("weights_do_not_act", replica=name, reason=faults[name])
        self._faults = faults
        self._metrics.faulty_replicas.set(len(faults))

    def _fault_of(self, replica: ReplicaInfo) -> str:
        if replica.act is None or (published := self._readings.get(replica.act.version)) is None:
            return ""
        return find_fault(published, replica.act, self.tolerance)
