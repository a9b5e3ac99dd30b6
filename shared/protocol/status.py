"""The status of a run, which its learner publishes: state, figures, accounts, replicas and queues."""

from enum import StrEnum

from pydantic import Field

from shared.protocol.figures import StepFigures
from shared.protocol.message import Message
from shared.protocol.replica import ReplicaInfo
from shared.tree.draw import WeightVersion


class RunState(StrEnum):
    STARTING = "starting"
    EVALUATING = "evaluating"
    TRAINING = "training"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class Accounts(Message):
    """How many tasks there are of each end. At every moment fed = used + skipped + stale + failed + outstanding."""

    fed: int = 0
    used: int = 0
    skipped: int = 0
    stale: int = 0
    failed: int = 0
    outstanding: int = 0
    duplicates: int = 0
    foreign: int = 0


class AccuracyFigures(Message):
    """Held-out accuracy over `problems`, with the standard error of avg@k."""

    avg_at_k: float
    pass_at_k: float
    problems: int
    standard_error: float


class FileAccuracy(AccuracyFigures):
    """That of one file, by its name, or by its path where two have one name."""

    file: str


class Evaluation(AccuracyFigures):
    """Held-out accuracy of one policy version, over the problems of all files."""

    step: int
    version: WeightVersion
    k: int
    files: tuple[FileAccuracy, ...] = ()
    """Of each file with an answer."""
    engine_gap: float | None = None
    """Mean |learner − engine| log-probability over answers that this version alone sampled."""


class RunStatus(Message):
    """Where a run is, at `time` (seconds since the epoch)."""

    run: str
    state: RunState
    version: WeightVersion | None = None
    max_staleness: int | None = None
    """How many updates older than `version` the weights of a tree may be."""
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    eta_seconds: float | None = None
    figures: StepFigures = Field(default_factory=StepFigures)
    accounts: Accounts = Field(default_factory=Accounts)
    evaluations: tuple[Evaluation, ...] = ()
    replicas: tuple[ReplicaInfo, ...] = ()
    queued_tasks: int = 0
    pending_tasks: int = 0
    queued_trees: int = 0
    rank_silent_seconds: tuple[float, ...] = ()
    """How long ago each rank of a learner of several gave a sign of life."""
    message: str = ""
    time: float = 0.0
