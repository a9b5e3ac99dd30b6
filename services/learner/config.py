"""The learner's configuration: section `[learner]`."""

import math
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from services.learner.data.source import DataSource
from services.learner.held_out_config import EvaluationConfig, HeldOutSets, SetPlan, plan_sets
from services.learner.objective_config import ObjectiveConfig, SamplingPolicy, Ties
from services.learner.tracker_config import MlflowConfig, SwanlabConfig, WandbConfig, check_names, tracker_names
from services.learner.value_config import ValueHeadConfig
from shared.errors import InvalidInput, describe
from shared.kinds import Plugins, default_of, own_code, packages_of, settings_of
from shared.plugins.deadline import Deadline
from shared.protocol.message import JsonObject
from shared.protocol.names import RunName
from shared.protocol.task import Growth
from shared.runtime.config import SHARED, OptionalUrl, Token
from shared.tree.credit import CREDITS, AnyCredit, Credit, Method
from shared.tree.ib_score import Estimation, IBSettings
from shared.tree.samplers import SAMPLERS
from shared.tree.values import reads_head, reads_likelihoods

ALL_LINEAR = "all-linear"
_SIGNAL_DEADLINE = Deadline(5.0)
"""Whether rewards teach is asked where nothing else goes on."""


class Schedule(StrEnum):
    """The learning rate after the warm-up: constant, or falling to 0 at the end of the run."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"

    def factor(self, share_done: float) -> float:
        """Multiplies the learning rate when `share_done` of the run is done."""
        match self:
            case Schedule.CONSTANT:
                return 1.0
            case Schedule.COSINE:
                return 0.5 * (1.0 + math.cos(math.pi * share_done))
            case Schedule.LINEAR:
                return 1.0 - share_done


class Device(StrEnum):
    AUTO = "auto"
    """CUDA if there is a device."""
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Of matrix products, and of the weights that replicas get. Weights in training and moments are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class AdapterInit(StrEnum):
    """What A of an adapter BA begins with; B begins with 0, so that the first policy is the model."""

    KAIMING = "kaiming"
    """Uniform, as torch initializes a linear layer."""
    GAUSSIAN = "gaussian"
    """Normal, with standard deviation 1/rank."""


class GradientSync(StrEnum):
    """When several ranks add up their gradients."""

    UPDATE = "update"
    """Once for each update. Until then every rank holds a gradient of the whole model, 4 bytes per parameter."""
    MICRO_BATCH = "micro_batch"
    """After every micro-batch: as often on the wire, and a rank holds its share of the gradient alone."""


class Resume(StrEnum):
    AUTO = "auto"
    """From the latest checkpoint, if there is one."""
    NEVER = "never"
    """From the start; a run directory with checkpoints is refused."""
    REQUIRE = "require"
    """From the latest checkpoint, which must be there."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path | dict | DataSource) else value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerConfig(_Table):
    """AdamW, its learning rate over the run, and the limit on its gradients."""

    lr: float = Field(1e-6, gt=0, description="Learning rate after the warm-up")
    schedule: Schedule = Field(Schedule.CONSTANT, description="The learning rate after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="Steps in which the learning rate rises from 0")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="β₁ and β₂ of AdamW"
    )
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm")

    def learning_rate(self, step: int, share_done: float) -> float:
        """Of the step after `step` others, when `share_done` of the run, in [0, 1], is done."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.lr * warmup * self.schedule.factor(min(1.0, share_done))


class AdapterConfig(_Table):
    """LoRA: each of these layers computes W x + (alpha/rank)·BA x, and only A and B are trained."""

    rank: int = Field(16, gt=0, description="r, the columns of B and the rows of A")
    alpha: int = Field(32, gt=0, description="BA counts times alpha/rank")
    target_modules: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="all-linear: every linear layer but the head; or names, such as [q_proj, v_proj]",
    )
    init: AdapterInit = Field(AdapterInit.KAIMING, description="What A begins with; B begins with 0")


class ReferenceConfig(_Table):
    """How the first model is kept, where KL or A-2 read it; adapters need none beside the policy."""

    precision: Precision = Field(
        Precision.FLOAT32, description="Of its weights; bfloat16 halves their memory and rounds the KL"
    )
    offload: bool = Field(
        False, description="Keep it in the machine's memory, and on the device only while it is read; one device only"
    )


def _fill_score(value: object, info: ValidationInfo) -> object:
    """Gives the score of a sampler that has one what it does not state, from the method."""
    if not isinstance(value, dict):
        return value
    sampler = _table(value.get("sampler"))
    kind, score = sampler.get("kind"), sampler.get("score", {})
    if not isinstance(kind, str) or not isinstance(score, dict):
        return value
    try:
        found = SAMPLERS.class_of(kind)
        if "score" not in settings_of(found) or not isinstance(default_of(found, "score"), IBSettings):
            return value
    except ValueError:  # is said where the sampler itself is read
        return value
    return value | {"sampler": sampler | {"score": _estimation(_method(info)) | score}}


def _table(value: object) -> dict[str, Any]:
    """A part as a table: its name is its kind."""
    return {"kind": value} if isinstance(value, str) else value if isinstance(value, dict) else {}


def _estimation(method: Method) -> dict[str, Any]:
    """What a score takes from the method."""
    return {field.name: getattr(method, field.name) for field in fields(Estimation)}


def _fill_credit(value: object, info: ValidationInfo) -> object:
    """Gives a credit what it has in common with the method, and does not state."""
    credit = {"kind": "ibtpo"} | _table(value)
    if not isinstance(value, str | dict) or not isinstance(credit["kind"], str):
        return value
    method = _method(info)
    return {name: getattr(method, name) for name in _in_common(CREDITS.class_of(credit["kind"]))} | credit


def _in_common(credit: type[Credit]) -> list[str]:
    """What a credit takes from the method: the settings of it that it has, unless by default it decides otherwise."""
    known = [field for field in fields(Method) if field.name in settings_of(credit)]
    return [field.name for field in known if default_of(credit, field.name) in (None, field.default)]


def _method(info: ValidationInfo) -> Method:
    return cast(Method, info.data.get("method", Method()))


class LearnerConfig(_Table):
    """One run. It ends with `total_steps` or `max_generated_tokens`, whichever comes first."""

    run: RunName = Field("default", description="Its name, for Redis keys and replicas")
    run_dir: Path = Field(Path("runs/default"), description="Checkpoints, metrics, trees and the final policy")
    resume: Resume = Field(Resume.AUTO, description="Whether to continue from the latest checkpoint")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the order of problems and of all sampling")
    deterministic: bool = Field(
        False,
        description="Runs with equal settings are equal bit for bit, whatever was killed and resumed; slow "
        "(docs/deterministic.md). Sets max_staleness to 0",
    )

    model: Path = Field(
        description="The policy to begin with: a directory as transformers saves it, or a model of the hub, "
        "OWNER/NAME or OWNER/NAME@REVISION (docs/models.md)"
    )
    context_length: int | None = Field(
        None,
        ge=2,
        description="Longest prompt and answer together. None: what config.json says, and at most an attention window; "
        "a number lets answers pass through windows, which the SGLang engine serves and the embedded one does not",
    )
    data: Annotated[tuple[DataSource, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="Problems to train on: files, hf:NAME, or tables with a source (docs/data.md)"
    )
    held_out: HeldOutSets = Field(
        {}, description="Problems to evaluate on: files, or tables by name (docs/evaluation.md); none: no evaluation"
    )

    chat_template_kwargs: JsonObject = Field(
        {}, description="Given to the chat template with the messages, such as {enable_thinking = false}"
    )

    method: Method = Field(
        Method(), description="What sampler and credit share, unless they state their own", json_schema_extra=SHARED
    )
    growth: Annotated[Growth, BeforeValidator(_fill_score)] = Field(
        description="How trees are grown: sampler, temperature, token limit", json_schema_extra=SHARED
    )
    advantage: Annotated[AnyCredit, BeforeValidator(_fill_credit)] = Field(
        "ibtpo",
        validate_default=True,
        description="How credit is assigned: a credit by name, a table of its kind and settings, or your own by import "
        "path (docs/own-parts.md)",
    )
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="The loss of a step")
    reference: ReferenceConfig = Field(ReferenceConfig(), description="How the model that KL compares with is kept")
    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="AdamW and its learning rate", json_schema_extra=SHARED
    )
    lora: AdapterConfig | None = Field(
        None, description="Train LoRA adapters of the model alone; without this table all weights are trained"
    )
    value_head: ValueHeadConfig | None = Field(
        None,
        description="Train a value head, and measure it; without this table one is trained where the credit reads it "
        "(values or baseline with source=head)",
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="Held-out accuracy during the run")

    batch_size: int = Field(24, gt=0, description="Trees per step")
    max_staleness: int = Field(1, ge=0, description="How many updates older than the learner a tree's tokens may be")
    straggler_seconds: float = Field(60.0, ge=0, description="How long a full batch waits for the trees of older tasks")
    total_steps: int | None = Field(None, gt=0, description="The run ends after so many training steps")
    max_generated_tokens: int | None = Field(None, gt=0, description="The run ends when so many tokens were generated")
    max_idle_steps: int = Field(
        50,
        ge=0,
        description="The run fails after so many steps in a row that change nothing (no tree whose rewards differ, or "
        "gradients that are not finite); 0: never",
    )

    publish_every: int = Field(1, gt=0, description="Updates between published versions")
    publish_seconds: float = Field(
        30.0, gt=0, description="Within how long a replica takes a version, and a second more per 20 MiB"
    )
    act_tolerance: float | None = Field(
        None,
        gt=0,
        description="How far a replica's log-probabilities of the act-probe may be from the learner's, in nats; beyond "
        "it the replica is not ready; none: 0.01, 0.25 or 1, by how both compute (docs/method.md, W-3)",
    )
    checkpoint_every: int = Field(10, gt=0, description="Steps between checkpoints")
    keep_checkpoints: int = Field(2, gt=0, description="How many checkpoints are kept, the newest")
    keep_trees: int = Field(
        8, ge=0, description="How many trees are kept as files: this many of the last, and a sample of this many"
    )

    tracker: Annotated[tuple[str, ...], BeforeValidator(tracker_names)] = Field(
        ("tensorboard",),
        description="Who gets the run's figures and some trees: tensorboard, wandb, mlflow, swanlab, "
        "package.module:Class of your own, several of them, or none (docs/trackers.md)",
    )
    wandb: WandbConfig = Field(WandbConfig(), description="With tracker=wandb")
    mlflow: MlflowConfig = Field(MlflowConfig(), description="With tracker=mlflow")
    swanlab: SwanlabConfig = Field(SwanlabConfig(), description="With tracker=swanlab")
    tracker_options: JsonObject = Field({}, description="Keyword arguments of a tracker of your own")
    tracker_seconds: float = Field(
        10.0, gt=0, description="How long trackers may delay the end of the run, to get what they have not got"
    )

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey of the run; or REDIS_URL")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback a token is required")
    verifier_url: OptionalUrl = Field(
        "", description="The verifier that reads every answer key before the run begins; empty: nobody does"
    )
    port: int = Field(8003, ge=0, le=65535, description="0 takes a free one")
    url: OptionalUrl = Field("", description="Where replicas reach it; empty: http://<host>:<port>")
    url_file: Path | None = Field(None, description="File for the URL, written once it listens")
    token: Token | None = Field(None, description="Bearer token between services; or IBTPO_TOKEN")
    grace_seconds: float = Field(
        120.0, ge=0, description="Time after SIGTERM to finish the step in progress and write a checkpoint"
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        description="Keep serving /metrics this long after the run ends; a few scrape intervals",
    )
    plugins: Plugins = Field(
        (),
        description="Packages of your own that a tree from the queue may name; those of this configuration's own parts "
        "may be, anyway (docs/own-parts.md)",
    )
    plugin_seconds: float = Field(30.0, gt=0, description="Deadline of a call of a credit or loss term of your own")
    device: Device = Field(Device.AUTO, description="Where the policy is trained")
    precision: Precision = Field(
        Precision.FLOAT32, description="Of matrix products, and of the weights that replicas get"
    )
    activation_checkpointing: bool = Field(
        False,
        description="Keep only each layer's input for the backward pass, which computes the layer again: less memory, "
        "more time, the same gradients",
    )
    gradient_sync: GradientSync = Field(
        GradientSync.UPDATE,
        description="When several ranks add up gradients; micro_batch saves each 4 bytes per parameter, and takes time",
    )
    threads: int = Field(1, gt=0, description="Threads of torch")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(True, description="Log JSON lines; false: short text")

    @model_validator(mode="before")
    @classmethod
    def _be_deterministic(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("deterministic") is True:
            return {"max_staleness": 0} | values
        return values

    @model_validator(mode="after")
    def _can_be_run(self) -> "LearnerConfig":
        check_names(self.tracker)
        plan_sets(self.held_out, self.evaluation, self.growth)
        if self.total_steps is None and self.max_generated_tokens is None:
            raise ValueError("say when the run ends: total_steps, max_generated_tokens or both")
        if self.growth.temperature == 0:
            raise ValueError("growth.temperature 0 leaves no distribution to learn from; 1.0 is usual")
        if self.growth.likelihood is None and reads_likelihoods(self.advantage):
            raise ValueError(
                "the credit's values or baseline have source=likelihood, and nothing is scored: set "
                "growth.likelihood={}, or give it others"
            )
        if self.deterministic and self.max_staleness:
            raise ValueError(
                f"deterministic needs max_staleness 0, and {self.max_staleness} is given: what a tree's weights are "
                "would depend on who is faster; leave max_staleness out, or give 0"
            )
        if self.publish_every > self.max_staleness + 1:
            raise ValueError(
                f"with publish_every {self.publish_every} trees may be {self.publish_every - 1} updates old when they "
                f"arrive, and max_staleness {self.max_staleness} drops them: publish at least every "
                f"{self.max_staleness + 1} updates"
            )
        if self.objective.ties is Ties.REFILL and self._has_signal((1.0, 1.0)):
            raise ValueError(
                "with this credit every tree has a signal (advantage.ib_on_ties or on_ties), and ties=refill waits for "
                "none: set that to false, or objective.ties=drop"
            )
        is_cut = self.growth.top_p < 1 or self.growth.top_k > 0
        if is_cut and self.objective.looks_at_products and self.objective.mu is SamplingPolicy.SAMPLING:
            raise ValueError(
                f"growth.top_p {self.growth.top_p:g} and top_k {self.growth.top_k} cut the support at every token, and "
                "over a whole answer π_old/μ tends to 0: set objective.mu=softmax, or tis_level and mask_level to token"
            )
        if self.objective.minibatches > self.batch_size:
            raise ValueError(
                f"objective.minibatches {self.objective.minibatches} exceed the {self.batch_size} trees of a step"
            )
        return self

    @model_serializer(mode="wrap")
    def _omit_method(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits from score and advantage what they take from the method, so that a later `beta=3` still changes all."""
        dumped: dict[str, Any] = dump(self)
        method, sampler = dumped.get("method", {}), dumped.get("growth", {}).get("sampler", {})
        taken = {"score": [*method], "advantage": _in_common(type(self.advantage))}
        for table, name in ((sampler, "score"), (dumped, "advantage")):
            if name in table:
                same = {key for key in taken[name] if table[name].get(key) == method.get(key)}
                table[name] = {key: value for key, value in table[name].items() if key not in same}
        return dumped

    def trains_on(self, rewards: Sequence[float]) -> bool:
        """Whether a step takes a tree with these rewards."""
        return self._has_signal(rewards) or (self.objective.ties is Ties.KEEP and bool(rewards))

    def _has_signal(self, rewards: Sequence[float]) -> bool:
        """InvalidInput where a credit of the user's own fails to say."""
        if not packages_of([self.advantage]):
            return self.advantage.has_signal(rewards)
        try:
            return bool(_SIGNAL_DEADLINE.call(self.advantage.has_signal, rewards))
        except (Exception, SystemExit) as error:  # which may raise anything
            kind = CREDITS.kind_of(self.advantage)
            raise InvalidInput(f"credit {kind}, has_signal: {describe(error)}") from error

    @property
    def tracker_modes(self) -> dict[str, str | None]:
        """Of the trackers that may be offline."""
        return {"wandb": self.wandb.mode, "swanlab": self.swanlab.mode}

    @property
    def score(self) -> IBSettings:
        """How figures score trees whose sampler has no score: by the method."""
        return IBSettings(**_estimation(self.method))

    @property
    def evaluation_plan(self) -> EvaluationConfig:
        """As `evaluation` says; where runs are deterministic, one problem at a time, as trees grow."""
        return self.evaluation.model_copy(update={"problems_per_replica": 1} if self.deterministic else {})

    @property
    def data_dir(self) -> Path:
        """Where problems lie that were imported for this run."""
        return self.run_dir / "data"

    @property
    def held_out_sources(self) -> tuple[DataSource, ...]:
        """The held-out sets, whose problems are not trained on."""
        return tuple(one.data for one in self.held_out.values())

    @property
    def held_out_plans(self) -> tuple[SetPlan, ...]:
        """How each held-out set is measured."""
        return plan_sets(self.held_out, self.evaluation, self.growth)

    @property
    def needs_reference(self) -> bool:
        """Whether every step reads the first model: for a term of the loss, or as the prior of A-2."""
        return self.objective.reads_reference or self.advantage.reads_reference

    @property
    def value_head_plan(self) -> ValueHeadConfig | None:
        """The value head that is trained: the one asked for, or the usual one where the credit reads it."""
        return self.value_head or (ValueHeadConfig() if reads_head(self.advantage) else None)

    @property
    def growth_packages(self) -> tuple[str, ...]:
        """The packages of the user's own that its tasks name, which every replica must have."""
        return packages_of([self.growth.sampler, self.score])

    @property
    def own_code(self) -> dict[str, str]:
        """A digest of every module of the user's own that this configuration names a part of."""
        parts = self.advantage, self.objective.surrogate, *self.objective.terms
        return {name: digest for part in parts for name, digest in own_code(part).items()}

    @property
    def own_packages(self) -> tuple[str, ...]:
        """The packages of the user's own that this configuration names."""
        own = packages_of([self.advantage, self.objective.surrogate, *self.objective.terms])
        return tuple(sorted({*self.growth_packages, *own}))

    @property
    def max_outstanding(self) -> int:
        """How many tasks may be outstanding: as many as can be used in order within the staleness bound.

        A task is fed under weights that may be `publish_every` − 1 updates older than the learner's.
        """
        return (self.max_staleness + 2 - self.publish_every) * self.batch_size
