"""The learner's configuration: section `[learner]`."""

import math
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.protocol.names import RunName
from shared.protocol.task import Growth
from shared.tree.advantage import Credit, Prior


class Schedule(StrEnum):
    """How the learning rate goes on after its warm-up: it stays, or falls to 0 at the end of the run."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"

    def factor(self, share_done: float) -> float:
        """What the learning rate is multiplied by, after the warm-up."""
        match self:
            case Schedule.CONSTANT:
                return 1.0
            case Schedule.COSINE:
                return 0.5 * (1.0 + math.cos(math.pi * share_done))
            case Schedule.LINEAR:
                return 1.0 - share_done


class LossNormalization(StrEnum):
    """What a token's loss is divided by (METHOD, Objective)."""

    TRAJECTORY = "trajectory"
    """Mean over the tokens of each trajectory, then over trajectories (GRPO)."""
    TOKEN = "token"  # noqa: S105
    """Mean over all tokens (DAPO)."""
    CONSTANT = "constant"
    """Sum over tokens, over trajectories times the token limit (Dr.GRPO)."""


class OldPolicy(StrEnum):
    """What a ratio π_θ/π_old is counted from."""

    RECOMPUTED = "recomputed"
    """The learner's weights as the step begins; min(π_old/μ, C) corrects for the engine μ and for staleness."""
    ENGINE = "engine"
    """The engine's own log-probabilities: the clip bounds what staleness may do, nothing else is corrected."""


class Device(StrEnum):
    AUTO = "auto"
    """CUDA where there is one."""
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Of matrix products, and of the weights that replicas get. Weights in training and moments are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Resume(StrEnum):
    AUTO = "auto"
    """From the latest checkpoint where there is one."""
    NEVER = "never"
    """From the start; a run directory that holds checkpoints is refused."""
    REQUIRE = "require"
    """From the latest checkpoint, which must be there."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerConfig(_Table):
    """AdamW, its learning rate over the run, and the guard on its gradients."""

    lr: float = Field(5e-4, gt=0)
    schedule: Schedule = Schedule.CONSTANT
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)

    def learning_rate(self, step: int, share_done: float) -> float:
        """Of the step after `step` others, where `share_done` of the run, in [0, 1], is behind it."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.lr * warmup * self.schedule.factor(min(1.0, share_done))


class ObjectiveConfig(_Table):
    """The loss of one step (METHOD, Objective)."""

    clip_low: float = Field(0.2, gt=0, lt=1)
    clip_high: float = Field(0.2, gt=0)
    kl_coef: float = Field(0.001, ge=0, description="Of the k3 divergence from the model the run began with; 0: off")
    old_policy: OldPolicy = OldPolicy.RECOMPUTED
    tis_cap: float = Field(2.0, gt=0, description="C of min(π_old/μ, C); counts with old_policy=recomputed")
    loss_normalization: LossNormalization = LossNormalization.TRAJECTORY
    epochs: int = Field(1, gt=0, description="Passes over the trees of a step")
    minibatches: int = Field(1, gt=0, description="Optimizer steps per pass")
    share_prefixes: bool = Field(
        True, description="Compute what trajectories begin with in common once; changes no result"
    )
    micro_batch_tokens: int = Field(
        2048,
        gt=0,
        description="Padded tokens of one forward pass: a bound on memory, and on a CPU what its caches hold",
    )


class EvaluationConfig(_Table):
    """Held-out accuracy, through the same replicas (METHOD, probe)."""

    every: int = Field(0, ge=0, description="Steps between evaluations; 0: only before and after")
    k: int = Field(8, gt=0, description="Independent answers per problem")
    problems: int = Field(128, gt=0, description="The first so many of the held-out set")
    max_tokens: int | None = Field(None, gt=0, description="None: as in training")
    problems_per_replica: int = Field(8, gt=0, description="Problems in flight on one replica")
    deadline_seconds: float = Field(600.0, gt=0, description="What has not been answered by then is left out")


def _several(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


def _named_credit(value: object) -> object:
    """Lets a credit be given by its name, "grpo", or as a named one with changes, {kind = "grpo", epsilon = 0.1}."""
    if isinstance(value, str):
        return Credit.named(value)
    if isinstance(value, dict) and "kind" in value:
        changes = {key: changed for key, changed in value.items() if key != "kind"}
        return asdict(Credit.named(value["kind"])) | changes
    return value


class LearnerConfig(_Table):
    """One run. It ends with `total_steps` or `max_generated_tokens`, whichever comes first."""

    run: RunName = Field("default", description="Its name, for Redis keys and replicas")
    run_dir: Path = Field(Path("runs/default"), description="Checkpoints, metrics, trees and the final policy")
    resume: Resume = Resume.AUTO
    seed: int = Field(0, ge=0)

    model: Path = Field(description="Directory of the policy to begin with, as transformers saves it")
    data: Annotated[tuple[Path, ...], BeforeValidator(_several)] = Field(
        min_length=1, description="Problems to train on: JSON lines, each a Problem"
    )
    held_out: Annotated[tuple[Path, ...], BeforeValidator(_several)] = Field(
        (), description="Problems to evaluate on; none: no evaluation"
    )

    growth: Growth = Field(description="How trees are grown: sampler, temperature, token limit")
    advantage: Annotated[Credit, BeforeValidator(_named_credit)] = Field(
        default_factory=lambda: Credit.named("ibtpo"), description="A credit by name, or a table of its switches"
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    batch_size: int = Field(24, gt=0, description="Trees per step")
    max_staleness: int = Field(1, ge=0, description="How many updates older than the learner a tree's tokens may be")
    straggler_seconds: float = Field(
        60.0, ge=0, description="How long a full batch waits for the tree of an older task, before it goes without"
    )
    total_steps: int | None = Field(None, gt=0)
    max_generated_tokens: int | None = Field(None, gt=0)

    publish_every: int = Field(1, gt=0, description="Updates between published versions")
    publish_seconds: float = Field(30.0, gt=0, description="What a push may take; a slower replica pulls by itself")
    checkpoint_every: int = Field(10, gt=0, description="Steps")
    keep_checkpoints: int = Field(2, gt=0)
    keep_trees: int = Field(8, ge=0, description="The last so many trees, and a sample of as many of all, are kept")

    redis_url: str = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: int = Field(8003, ge=0, le=65535, description="0 takes a free one")
    url: str = Field("", description="Where replicas reach it; empty: http://<host>:<port>")
    url_file: Path | None = Field(None, description="Written once it listens, for launchers")
    token: str | None = Field(None, description="Bearer token between services; or IBTPO_TOKEN")
    grace_seconds: float = Field(
        120.0, ge=0, description="What a SIGTERM gives the step in progress and its checkpoint"
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        description="How long it serves on when its run has ended: some intervals of whoever scrapes its metrics",
    )
    device: Device = Device.AUTO
    precision: Precision = Field(
        Precision.FLOAT32, description="Of matrix products, and of the weights that replicas get"
    )
    threads: int = Field(1, gt=0, description="Threads of torch")
    log_level: str = "info"

    @model_validator(mode="after")
    def _can_be_run(self) -> "LearnerConfig":
        if self.total_steps is None and self.max_generated_tokens is None:
            raise ValueError("say when the run ends: total_steps, max_generated_tokens or both")
        if self.growth.temperature == 0:
            raise ValueError("growth.temperature 0 leaves no distribution to learn from; 1.0 is usual")
        if self.publish_every > self.max_staleness + 1:
            raise ValueError(
                f"with publish_every {self.publish_every} trees may be {self.publish_every - 1} updates old when they "
                f"come, and max_staleness {self.max_staleness} drops them: publish at least every "
                f"{self.max_staleness + 1} updates"
            )
        if self.objective.minibatches > self.batch_size:
            raise ValueError(
                f"objective.minibatches {self.objective.minibatches} exceed the {self.batch_size} trees of a step"
            )
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether the model that the run began with is read in every step: by the KL term, or as the prior of A-2."""
        return self.objective.kl_coef > 0 or (self.advantage.prior is Prior.REFERENCE and self.advantage.lam != 0)

    @property
    def max_outstanding(self) -> int:
        """Tasks in flight: as many as can still be used in their turn within the staleness bound.

        A task is fed under weights that may be `publish_every` − 1 updates older than the learner's.
        """
        return (self.max_staleness + 2 - self.publish_every) * self.batch_size
