"""The configuration of a step's loss: table `[learner.objective]` (METHOD, Objective)."""

import math
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.learner.loss_terms import SURROGATES, TERMS, AnySurrogate, AnyTerm, LossTerm

Bound = Annotated[float, Field(ge=0)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | dict) else value


class LossNormalization(StrEnum):
    """What a token's loss is divided by (METHOD, Objective)."""

    TRAJECTORY = "trajectory"
    """Mean over the tokens of each trajectory, then over trajectories (GRPO)."""
    TOKEN = "token"  # noqa: S105
    """Mean over all tokens, by their weights (DAPO)."""
    CONSTANT = "constant"
    """Sum over tokens, over trajectories times the token limit (Dr.GRPO)."""


class RatioLevel(StrEnum):
    """What the ratio π_θ/π_old of a token is. A trajectory is its whole path, from the prompt to its leaf."""

    TOKEN = "token"  # noqa: S105
    """The token's own."""
    SEQUENCE = "sequence"
    """The geometric mean over the trajectory's tokens, one for all of them (GSPO)."""
    SEQUENCE_TOKEN = "sequence-token"  # noqa: S105
    """That mean as a value, with the gradient of the token's own log-probability (GSPO-token)."""


class KLEstimator(StrEnum):
    """How a sampled token estimates KL(π_θ ‖ π_ref); d = log π_ref − log π_θ."""

    K1 = "k1"
    """−d: unbiased. As a loss its gradient is 0 on average, unless `unbiased_kl` weighs it."""
    K2 = "k2"
    """d²/2: biased, and on-policy its gradient is that of the KL."""
    K3 = "k3"
    """exp(d) − d − 1: unbiased and never negative."""


class Ties(StrEnum):
    """What becomes of trees whose rewards are all equal, which have no signal."""

    DROP = "drop"
    """They leave the step, which trains on the others."""
    KEEP = "keep"
    """They stay with advantage 0, or that of a penalty: in the loss's divisor, in the KL and in the entropy terms."""
    REFILL = "refill"
    """They leave the step, which waits for others in their place (DAPO's dynamic sampling)."""


class OldPolicy(StrEnum):
    """π_old of the ratio π_θ/π_old."""

    RECOMPUTED = "recomputed"
    """The learner's weights at the beginning of the step; min(π_old/μ, C) corrects for engine and staleness."""
    ENGINE = "engine"
    """The engine's log-probabilities: the clip bounds the effect of staleness, and only a cut support is corrected."""


class SamplingPolicy(StrEnum):
    """μ of π_old/μ, where top-p or top-k cut the support; elsewhere the two are one."""

    SAMPLING = "sampling"
    """What tokens were sampled from: the cut distribution, where the engine gives its log-probabilities."""
    SOFTMAX = "softmax"
    """The full softmax, as if nothing had been cut."""


class ImportanceLevel(StrEnum):
    """Which π_old/μ weighs a token, truncated at `tis_cap`."""

    OFF = "off"
    TOKEN = "token"  # noqa: S105
    """The token's own."""
    SEQUENCE = "sequence"
    """The product over its trajectory."""


class MaskLevel(StrEnum):
    """Which π_old/μ must lie within `mask_bounds`; a token outside has no surrogate."""

    OFF = "off"
    TOKEN = "token"  # noqa: S105
    """The token's own (IcePop)."""
    SEQUENCE = "sequence"
    """The product over its trajectory."""
    GEOMETRIC = "geometric"
    """The geometric mean over its trajectory."""

    @property
    def usual_bounds(self) -> tuple[float, float]:
        return (0.99, 1.01) if self is MaskLevel.GEOMETRIC else (0.5, 2.0)


class ObjectiveConfig(BaseModel):
    """The loss of one step (METHOD, Objective)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    surrogate: AnySurrogate = Field(
        "clip",
        validate_default=True,
        description="clip: the clipped surrogate of PPO; cispo: clipped weights times log π; none; or your own by "
        "import path (docs/own-parts.md)",
    )
    terms: Annotated[tuple[AnyTerm, ...], BeforeValidator(_as_tuple)] = Field(
        (),
        description="Further terms of every token's loss, each a table of its kind (kl, entropy, entropy-advantage, or "
        "your own by import path) and its settings (docs/own-parts.md)",
    )
    ratio: RatioLevel = Field(
        RatioLevel.TOKEN,
        description="π_θ/π_old: token; sequence: its geometric mean over a trajectory (GSPO); sequence-token: that "
        "value with the token's own gradient",
    )
    clip_low: float = Field(
        0.2, gt=0, le=1, description="The ratio π_θ/π_old is clipped below at 1 − this; 1: not clipped below"
    )
    clip_high: float = Field(0.2, gt=0, description="The ratio is clipped above at 1 + this")
    dual_clip: float | None = Field(
        None, gt=1, description="Where the advantage is negative, the ratio counts up to this; None: without bound"
    )
    kl_coef: float = Field(0.001, ge=0, description="Weight of the KL to the first model; 0: off")
    kl_estimator: KLEstimator = Field(KLEstimator.K3, description="The KL's estimate of a token: k1, k2 or k3")
    kl_max: float | None = Field(
        10.0, gt=0, description="The KL's estimate of a token is bounded to ± this; None: not bounded"
    )
    unbiased_kl: bool = Field(
        False, description="Multiply the KL's estimate by π_θ/π_old, which makes its gradient unbiased"
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the policy's entropy, which it rewards; 0: off")
    entropy_advantage_coef: float = Field(
        0.0, ge=0, description="Weight of entropy times advantage (IBRO, IIB-LPO); 0: off"
    )
    router_coef: float = Field(
        0.0,
        ge=0,
        description="Weight of the loss that balances the routers of a mixture of experts; its config.json has that of "
        "its training as router_aux_loss_coef; 0: off",
    )
    old_policy: OldPolicy = Field(
        OldPolicy.RECOMPUTED, description="π_old: the learner's weights, or the engine's log-probabilities"
    )
    mu: SamplingPolicy = Field(
        SamplingPolicy.SAMPLING,
        description="μ of π_old/μ: sampling, the distribution that top-p and top-k leave; softmax, the whole one",
    )
    tis_level: ImportanceLevel = Field(
        ImportanceLevel.TOKEN, description="π_old/μ that weighs a token: token, sequence (its trajectory's) or off"
    )
    tis_cap: float = Field(2.0, gt=0, description="C of min(π_old/μ, C)")
    mask_level: MaskLevel = Field(
        MaskLevel.OFF,
        description="Leave out tokens where π_old/μ is out of mask_bounds: of the token (IcePop), of its trajectory "
        "(sequence), or the trajectory's geometric mean (geometric)",
    )
    mask_bounds: tuple[Bound, Bound] | None = Field(
        None, description="Lowest and highest π_old/μ that mask_level keeps; None: 0.5, 2, and 0.99, 1.01 if geometric"
    )
    ties: Ties = Field(
        Ties.DROP,
        description="Trees whose rewards are all equal: drop; keep, with advantage 0 unless a penalty parts them; "
        "refill, until batch_size trees have a signal",
    )
    refill_limit: int = Field(
        10, gt=0, description="With ties=refill, a step takes at most this many times batch_size trees"
    )
    overlong_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The last share of growth.max_tokens, over which a longer answer loses reward, up to "
        "overlong_penalty (DAPO: 0.2); 0: off",
    )
    overlong_penalty: float = Field(
        1.0,
        gt=0,
        description="What an answer of growth.max_tokens loses of its reward (DAPO: 1 of rewards −1 and 1, here 0.5)",
    )
    mask_truncated: bool = Field(
        False, description="Do not train on answers that growth.max_tokens cut; their rewards still count in baselines"
    )
    mask_likely: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Do not train on tokens that the engine gave at least this probability when it sampled them, nor "
        "count them in divisors (SPO: 0.9); None: train on all",
    )
    loss_normalization: LossNormalization = Field(
        LossNormalization.TRAJECTORY, description="What a token's loss is divided by"
    )
    epochs: int = Field(1, gt=0, description="Passes over the trees of a step")
    minibatches: int = Field(1, gt=0, description="Optimizer steps per pass")
    share_prefixes: bool = Field(True, description="Compute a prefix that trajectories share once; changes no result")
    micro_batch_tokens: int | None = Field(
        None,
        gt=0,
        description="Tokens of one forward pass, padding included: bounds memory; a larger tree is cut, and computes a "
        "part of its prefixes again. None: eight times the longest trajectory of the step, and at least 2048",
    )

    @property
    def all_terms(self) -> tuple[LossTerm, ...]:
        """What is added to the surrogate: the terms that `kl_coef` and its like stand for, then `terms`."""
        kl = {"coef": self.kl_coef, "estimator": self.kl_estimator, "max": self.kl_max, "unbiased": self.unbiased_kl}
        named = (
            ("kl", kl),
            ("entropy", {"coef": self.entropy_coef}),
            ("entropy-advantage", {"coef": self.entropy_advantage_coef}),
        )
        return (*(TERMS.make({"kind": kind} | table) for kind, table in named if table["coef"]), *self.terms)

    @property
    def reads_reference(self) -> bool:
        """Whether a term needs the log-probabilities of the first model."""
        return any(term.reads_reference for term in self.all_terms)

    @property
    def updates_per_step(self) -> int:
        return self.epochs * self.minibatches

    @model_validator(mode="after")
    def _makes_sense(self) -> "ObjectiveConfig":
        is_cispo = SURROGATES.kind_of(self.surrogate) == "cispo"
        if is_cispo and self.dual_clip is not None:
            raise ValueError("dual_clip bounds the loss of surrogate=clip; cispo bounds weights: leave dual_clip out")
        if is_cispo and self.ratio is RatioLevel.SEQUENCE_TOKEN:
            raise ValueError("cispo takes no gradient of the ratio: sequence-token is sequence there; set the latter")
        if self.unbiased_kl and self.kl_coef == 0:
            raise ValueError("unbiased_kl weighs the KL, and kl_coef 0 leaves it out: set kl_coef, such as 0.001")
        if self.mask_level is MaskLevel.OFF and self.mask_bounds is not None:
            raise ValueError("mask_bounds without mask_level mask nothing: set mask_level=token, sequence or geometric")
        if self.mask_level is not MaskLevel.OFF and self.old_policy is OldPolicy.ENGINE:
            raise ValueError(
                "with old_policy=engine π_old is the engine's, and no mask_level finds a difference: set "
                "old_policy=recomputed"
            )
        if self.mask_bounds is not None and not self.mask_bounds[0] <= 1.0 <= self.mask_bounds[1]:
            low, high = self.mask_bounds
            raise ValueError(f"mask_bounds {low:g}, {high:g} leave out tokens without any difference: enclose 1")
        return self

    @property
    def looks_at_products(self) -> bool:
        """Whether a π_old/μ of whole trajectories counts."""
        by_mask = self.mask_level in {MaskLevel.SEQUENCE, MaskLevel.GEOMETRIC}
        return by_mask or self.tis_level is ImportanceLevel.SEQUENCE

    @property
    def kept_ratios(self) -> tuple[float, float]:
        """The π_old/μ that the mask keeps."""
        if self.mask_level is MaskLevel.OFF:
            return 0.0, math.inf
        return self.mask_bounds or self.mask_level.usual_bounds
