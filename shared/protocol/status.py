"""What a run says of itself while it goes on, for `ibtpo status`, the live view and the end."""

from enum import StrEnum

from pydantic import Field

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
    """Where every task is: fed = used + skipped + stale + failed + outstanding, at every moment."""

    fed: int = 0
    used: int = 0
    skipped: int = 0
    stale: int = 0
    failed: int = 0
    outstanding: int = 0
    duplicates: int = 0
    foreign: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the identity holds."""
        return self.fed == self.used + self.skipped + self.stale + self.failed + self.outstanding


class StepFigures(Message):
    """The figures of one training step (METHOD, Diagnostics); None where a step has nothing to average."""

    step: int = 0
    avg_rate: float | None = None
    root_value: float | None = None
    eff_rate: float | None = None
    ib_score: float | None = None
    cov_eta: float | None = None
    cov_eta_nodes: int = 0
    advantage_global: float | None = None
    """Mean |A_GL| over the nodes of trees with a signal."""
    advantage_local: float | None = None
    """Mean |λ·A_IB| over the same nodes."""
    entropy: float | None = None
    kl: float | None = None
    clip_share: float | None = None
    grad_norm: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    engine_gap: float | None = None
    """Mean |learner's − engine's log-probability| over tokens of the same weights."""
    trees: int = 0
    trajectories: int = 0
    generated_tokens: int = 0
    trajectories_per_1k_tokens: float | None = None
    cache_hit_share: float | None = None
    staleness: float | None = None
    intake_seconds: float = 0.0
    update_seconds: float = 0.0
    publish_seconds: float = 0.0


class Evaluation(Message):
    """Held-out accuracy at one policy version: avg@k and pass@k over `problems`."""

    step: int
    version: WeightVersion
    k: int
    avg_at_k: float
    pass_at_k: float
    problems: int
    standard_error: float
    engine_gap: float | None = None
    """Mean |learner's − engine's log-probability| over answers that exactly this version sampled."""


class RunStatus(Message):
    """The whole of it, as of `time` (seconds since the epoch)."""

    run: str
    state: RunState
    version: WeightVersion | None = None
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    eta_seconds: float | None = None
    tokens_per_second: float = 0.0
    figures: StepFigures = Field(default_factory=StepFigures)
    accounts: Accounts = Field(default_factory=Accounts)
    evaluations: tuple[Evaluation, ...] = ()
    replicas: tuple[ReplicaInfo, ...] = ()
    queued_tasks: int = 0
    pending_tasks: int = 0
    queued_trees: int = 0
    message: str = ""
    time: float = 0.0
