"""The state of a rollout replica, in the registry and over HTTP."""

from enum import StrEnum

from shared.protocol.act_probe import ActReading
from shared.protocol.message import Message
from shared.tree.draw import WeightVersion


class ReplicaState(StrEnum):
    WAITING = "waiting"
    """No weights of the run yet, or too old ones, or its engine is restarting: not ready."""
    SERVING = "serving"
    DRAINING = "draining"


class ReplicaInfo(Message):
    """One live replica. `url` is where the learner pushes weights; `loading` is the version that is on its
    way into it; `problem` is why it gets no weights or no verdicts, grows no tasks, or has weights that do not act as
    published."""

    name: str
    url: str
    state: ReplicaState
    version: WeightVersion | None
    trees_in_flight: int = 0
    loading: WeightVersion | None = None
    problem: str = ""
    reads_tasks: bool = True
    """False where the run's tasks name a sampler that is not there, or another version of it."""
    content_hash: str = ""
    """Of the bundle that it serves; empty before the first that arrived over HTTP."""
    act: ActReading | None = None
    """What its weights said of the act-probe last; None before that, and where its engine scores nothing."""
