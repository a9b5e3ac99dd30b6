"""Every figure that a run reports, declared once: metrics, terminal, report and dashboards read this table.

To add one, declare it in one of the classes below and compute it where that class is made.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from typing import Any

from pydantic import Field

from shared.protocol.message import Message


class Shown(Flag):
    """Where a figure is shown. metrics.jsonl and summary.json hold all of them."""

    GAUGE = auto()
    """Prometheus series `ibtpo_learner_NAME`: the value of the last step."""
    COUNTER = auto()
    """Prometheus series `ibtpo_learner_NAME_total`: the sum over steps."""
    BALANCE = auto()
    """A panel of the dashboard Balance."""
    THROUGHPUT = auto()
    """A panel of the dashboard Throughput."""
    VIEW = auto()
    """A row of the live view and of `ibtpo status`."""
    LINE = auto()
    """The line per step where there is no terminal."""
    OUTCOME = auto()
    """A row in the terminal when the run has finished."""
    PLOT = auto()
    """A plot of the report."""
    CARD = auto()
    """A card at the head of the report."""


EVERYWHERE = ~Shown(0)


class Style(StrEnum):
    """How values are drawn over time."""

    LINE = "line"
    POINTS = "points"
    """No lines between values that scatter."""
    STACK = "stack"
    """Areas of one chart that add up."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a number means and where it is shown.

    `unit`: "" for none, "share" for 0 to 1, "s" for seconds, else as written. `help` is a sentence without full stop.
    Figures of one `chart` are drawn together; without it a figure has a chart of its own.
    """

    label: str
    unit: str
    format: str
    help: str
    shown: Shown
    chart: str = ""
    style: Style = Style.LINE

    @property
    def title(self) -> str:
        """The label, with its unit where that is a word."""
        return self.label if self.unit in ("", "share") else f"{self.label}, {self.unit}"

    def text(self, value: float | None) -> str:
        """The value as people read it; a dash for None."""
        return "–" if value is None else format(value, self.format)

    def phrase(self, value: float) -> str:
        """Label, value and unit: `throughput 5,120 tokens/s`."""
        unit = self.title.removeprefix(self.label).removeprefix(",")
        return f"{self.label} {self.text(value)}{unit}"

    def __call__(self, schema: dict[str, Any]) -> None:
        """Puts label, unit and help into the field's JSON schema, as pydantic asks."""
        schema.update(title=self.title, description=f"{self.help}.")


@dataclass(frozen=True, slots=True)
class Chart:
    """Figures of one unit that are drawn together."""

    title: str
    figures: dict[str, Figure]
    """By name."""

    @property
    def first(self) -> Figure:
        """Has the unit and the style of all."""
        return next(iter(self.figures.values()))

    @property
    def description(self) -> str:
        """A sentence per figure."""
        if len(self.figures) == 1:
            return f"{self.first.help}."
        return " ".join(f"{figure.label}: {figure.help}." for figure in self.figures.values())


def _figure(
    label: str,
    unit: str,
    form: str,
    meaning: str,
    shown: Shown,
    chart: str = "",
    style: Style = Style.LINE,
    default: float | None = None,
) -> Any:
    """A message's field that carries its figure."""
    return Field(default, json_schema_extra=Figure(label, unit, form, meaning, shown, chart, style))


_PANEL = Shown.GAUGE | Shown.BALANCE
_GRAPHS = _PANEL | Shown.PLOT
_STEP = Shown.VIEW | Shown.LINE
_RUN = _STEP | Shown.OUTCOME
_LENGTHS = "Answer length"
_ANSWERS = _PANEL | Shown.PLOT
_UNIFORM = (_GRAPHS, "Trees without a signal")
_TIME = (Shown.PLOT, "Time of a step")
_SPEED = Shown.GAUGE | Shown.THROUGHPUT | Shown.PLOT
_EFFICIENCY = (_SPEED, "How well an update computes")
_UPDATE_TIME = (_SPEED, "Time of an update")


class SamplingFigures(Message):
    """What sampling trees came to, in a step or in a run (METHOD, Diagnostics); None where nothing can be averaged."""

    root_value: float | None = _figure(
        "root value", "share", ".3f", "Mean reward of trees' initial draws: unbiased", _GRAPHS | _RUN, "Reward"
    )
    avg_rate: float | None = _figure(
        "Avg-Rate", "share", ".3f", "Mean reward of leaves: biased by where trees branch", _GRAPHS | _STEP, "Reward"
    )
    eff_rate: float | None = _figure(
        "Eff-Rate", "share", ".3f", "Share of trees with unequal rewards: only these teach", _GRAPHS | _RUN | Shown.CARD
    )
    all_right_share: float | None = _figure(
        "all answers right", "share", ".3f", "Share of trees whose answers all have the full reward", *_UNIFORM
    )
    all_wrong_share: float | None = _figure(
        "all answers wrong", "share", ".3f", "Share of trees whose answers all have reward 0", *_UNIFORM
    )
    ib_score: float | None = _figure(
        "IB-Score", "", "+.3f", "Mean IB-Score over nodes with two draws or more", _GRAPHS | _RUN
    )
    cov_eta: float | None = _figure(
        "Cov(η₁, η₂)",
        "",
        "+.4f",
        "Mean covariance of what a step explores (η₁) and decides (η₂), over nodes whose draws differ in value; "
        "it tends to 0 when the balance is lost, and when all is solved",
        _GRAPHS | _RUN,
        style=Style.POINTS,
    )
    cov_eta_nodes: int = _figure(
        "nodes to balance",
        "nodes",
        ",",
        "Nodes whose draws differ in value: where few, Cov means nothing",
        _PANEL,
        default=0,
    )
    trajectories_per_1k_tokens: float | None = _figure(
        "trajectories per 1,000 tokens",
        "",
        ".1f",
        "Trajectories per 1,000 generated tokens: 1,000 / mean length where no prefix is shared",
        _RUN | Shown.GAUGE | Shown.THROUGHPUT | Shown.PLOT | Shown.CARD,
    )
    cache_hit_share: float | None = _figure(
        "prefix tokens from cache",
        "share",
        ".0%",
        "Share of prompt and prefix tokens served from the engines' prefix caches",
        Shown.GAUGE | Shown.THROUGHPUT | Shown.VIEW | Shown.OUTCOME,
    )
    tokens_per_second: float | None = _figure(
        "throughput", "tokens/s", ",.0f", "Tokens generated per second of training", _RUN | Shown.PLOT | Shown.CARD
    )
    truncated_share: float | None = _figure(
        "cut answers",
        "share",
        ".1%",
        "Share of answers that the token limit cut; they count 0 unless growth.judge_truncated",
        _PANEL | Shown.VIEW | Shown.PLOT | Shown.OUTCOME,
    )
    answer_tokens: float | None = _figure(
        "mean answer", "tokens", ",.0f", "Mean length of an answer", _ANSWERS | Shown.VIEW | Shown.OUTCOME, _LENGTHS
    )
    answer_tokens_max: int | None = _figure(
        "longest answer", "tokens", ",", "Length of the longest answer", _ANSWERS | Shown.OUTCOME, _LENGTHS
    )
    trees_without_values: int = _figure(
        "trees without values",
        "",
        ",",
        "Trees in no IB-Score or Cov, as a value estimator of the user's own failed or took too long",
        Shown.COUNTER,
        default=0,
    )
    trees: int = _figure("trees", "", ",", "Trees that steps took", Shown.COUNTER, default=0)
    trajectories: int = _figure("trajectories", "", ",", "Judged trajectories in them", Shown.COUNTER, default=0)
    generated_tokens: int = _figure(
        "tokens generated", "", ",", "Tokens that engines sampled for them", Shown.COUNTER | Shown.OUTCOME, default=0
    )


class UpdateFigures(Message):
    """What a step did to the policy: means over the tokens that it trained on, and over the nodes of their trees."""

    entropy: float | None = _figure(
        "entropy", "nats/token", ".3f", "Mean entropy of the policy where it was sampled", _GRAPHS | _STEP
    )
    kl: float | None = _figure(
        "KL",
        "nats/token",
        ".4f",
        "Mean estimate of the divergence from the model that the run began with",
        _GRAPHS | Shown.VIEW,
    )
    clip_share: float | None = _figure(
        "clipped tokens",
        "share",
        ".1%",
        "Share of tokens that the clip left without a gradient; with cispo, whose weight it bounded",
        _GRAPHS,
    )
    masked_share: float | None = _figure(
        "masked tokens",
        "share",
        ".1%",
        "Share of tokens left out because engine and learner disagree: objective.mask_level",
        Shown.GAUGE,
    )
    likely_share: float | None = _figure(
        "probable tokens",
        "share",
        ".1%",
        "Share of tokens left out because the engine was sure of them: objective.mask_likely",
        Shown.GAUGE,
    )
    router_loss: float | None = _figure(
        "router loss",
        "",
        ".3f",
        "How unevenly routers use the experts of a mixture: the experts per token where all are used alike",
        Shown.GAUGE,
    )
    ratio_max: float | None = _figure(
        "largest ratio", "", ".3f", "Largest π_θ/π_old of a token; 1 where a step is one update", Shown.GAUGE
    )
    grad_norm: float | None = _figure("gradient norm", "", ".3f", "Norm of the gradient before clipping", _PANEL)
    advantage_global: float | None = _figure(
        "|A_GL|", "", ".3f", "Mean size over nodes of trees with a signal", _PANEL, "Parts of the advantage"
    )
    advantage_local: float | None = _figure(
        "|λ·A_IB|", "", ".3f", "The same of the information part", _PANEL, "Parts of the advantage"
    )
    value_loss: float | None = _figure(
        "value loss",
        "nats",
        ".3f",
        "Cross-entropy of what the value head, or the likelihood, said of a step's nodes with their counts",
        Shown.GAUGE,
    )
    value_brier: float | None = _figure(
        "Brier score of values", "", ".3f", "Mean square of what it said less the counts, by leaves", Shown.GAUGE
    )
    value_correlation: float | None = _figure(
        "correlation of values", "", "+.2f", "Correlation of what it said with the counts, by leaves", Shown.GAUGE
    )
    trees_without_prior: int = _figure(
        "trees without a prior",
        "",
        ",",
        "Trees whose values fell back to those of the leaves, as nobody said anything of their nodes",
        Shown.COUNTER,
        default=0,
    )
    loss: float | None = _figure("loss", "", ".4f", "Loss of the step", Shown.GAUGE)
    learning_rate: float | None = _figure("learning rate", "", ".2e", "Learning rate of the step", Shown.GAUGE)
    engine_gap: float | None = _figure(
        "engine gap",
        "nats/token",
        ".4f",
        "Mean |learner − engine| log-probability over tokens of the same weights: a rise means that the engine no "
        "longer samples what the learner trains",
        _PANEL,
    )
    tis_weight: float | None = _figure(
        "mean correction",
        "",
        ".3f",
        "Mean factor min(π_old/μ, C) of a token's loss, which corrects for engine and staleness; 0 where masked",
        Shown.GAUGE,
    )
    tis_capped_share: float | None = _figure(
        "capped corrections", "share", ".1%", "Share of tokens whose factor is the cap C", _PANEL
    )
    own_terms: dict[str, float] = Field({})
    """Of every loss term of the user's own, its mean over tokens, before the weight of a token."""
    trained_tokens: int = _figure(
        "tokens trained on",
        "",
        ",",
        "Tokens of answers in the loss, once per trajectory and pass",
        Shown.COUNTER,
        default=0,
    )
    peak_memory_gib: float | None = _figure(
        "peak memory",
        "GiB",
        ",.2f",
        "Most memory during the update on any rank: of tensors on a CUDA device, else of the process",
        _SPEED,
    )
    packing_share: float | None = _figure(
        "of the packing limit",
        "share",
        ".1%",
        "Distinct tokens to columns that are computed, padding included: 1 where every prefix is computed once",
        *_EFFICIENCY,
    )
    mfu: float | None = _figure(
        "MFU",
        "share",
        ".1%",
        "Arithmetic of the model to what the devices could do in bfloat16, over the update; on known CUDA devices only",
        *_EFFICIENCY,
    )
    model_tflops: float | None = _figure(
        "arithmetic", "TFLOP/s", ",.3f", "Arithmetic of the model per second of the update and rank", Shown.GAUGE
    )
    memory_retries: int = _figure(
        "passes out of memory",
        "",
        ",",
        "Passes that ran out of memory, after which all later ones are half as large",
        Shown.COUNTER,
        default=0,
    )
    credit_failures: int = _figure(
        "trees without credit",
        "",
        ",",
        "Trees left out because a credit of the user's own failed, took too long or gave no numbers",
        Shown.COUNTER,
        default=0,
    )
    credit_seconds: float = _figure(
        "credit", "s", ".3f", "Trajectories and advantages from trees", *_UPDATE_TIME, default=0.0, style=Style.STACK
    )
    pack_seconds: float = _figure(
        "pack", "s", ".3f", "Micro-batches from trajectories", *_UPDATE_TIME, default=0.0, style=Style.STACK
    )
    forward_seconds: float = _figure(
        "forward",
        "s",
        ".3f",
        "Forward passes, those of reference and old policy among them",
        *_UPDATE_TIME,
        default=0.0,
        style=Style.STACK,
    )
    backward_seconds: float = _figure(
        "backward", "s", ".3f", "Backward passes", *_UPDATE_TIME, default=0.0, style=Style.STACK
    )
    optimizer_seconds: float = _figure(
        "optimizer", "s", ".3f", "Clipping gradients, AdamW", *_UPDATE_TIME, default=0.0, style=Style.STACK
    )


class StepFigures(UpdateFigures, SamplingFigures):
    """One training step: a line of metrics.jsonl."""

    step: int = 0
    time: float | None = None
    """When it ended, in seconds since the epoch."""
    run_seconds: float | None = None
    """How long the run had gone on by then, without the time between a stop and what continued it."""
    staleness: float | None = _figure(
        "staleness",
        "updates",
        ".2f",
        "Mean number of updates by which a step's trees are behind the learner",
        Shown.GAUGE | Shown.THROUGHPUT | Shown.VIEW | Shown.PLOT,
    )
    answer_tokens_p95: float | None = _figure(
        "long answer (p95)", "tokens", ",.0f", "Length that 95% of a step's answers do not exceed", _ANSWERS, _LENGTHS
    )
    intake_seconds: float = _figure(
        "intake", "s", ".2f", "Time spent waiting for trees", *_TIME, default=0.0, style=Style.STACK
    )
    update_seconds: float = _figure(
        "update", "s", ".2f", "Time spent training on them", *_TIME, default=0.0, style=Style.STACK
    )
    publish_seconds: float = _figure(
        "publish", "s", ".2f", "Time spent bringing weights to replicas", *_TIME, default=0.0, style=Style.STACK
    )
    checkpoint_seconds: float = _figure(
        "checkpoint",
        "s",
        ".2f",
        "Time spent on a checkpoint since the step before",
        *_TIME,
        default=0.0,
        style=Style.STACK,
    )
    trained_tokens_per_second: float | None = _figure(
        "training", "tokens/s", ",.0f", "Tokens trained on per second of the update", _SPEED
    )


class HeldOutFigures(Message):
    """Accuracy on held-out problems, before the first step and after the last, with the standard error of avg@k."""

    avg_at_k_before: float | None = None
    avg_at_k_after: float | None = None
    pass_at_k_before: float | None = None
    pass_at_k_after: float | None = None
    maj_at_k_before: float | None = None
    maj_at_k_after: float | None = None
    standard_error_before: float | None = None
    standard_error_after: float | None = None


class SetFigures(HeldOutFigures):
    """That of one held-out set."""

    name: str
    k: int
    problems: int


class RunSummary(SamplingFigures, HeldOutFigures):
    """summary.json: what a finished run came to, over all of its trees."""

    run: str
    sampler: str
    method: str
    """The advantage, by its name."""
    advantage: str
    """Its switches, as JSON."""
    lr: float
    seed: int
    model: str
    data: tuple[str, ...]
    held_out: tuple[str, ...]
    version: str
    """Of ibtpo."""
    commit: str
    """Of the source that ran; empty where it is no checkout."""
    warning: str = ""
    """What went wrong with the run as a whole."""
    k: int | None
    """Answers to each held-out problem; None where sets differ in it."""
    sets: tuple[SetFigures, ...] = ()
    """Of each held-out set; what is above is their average."""
    steps: int
    updates: int = _figure("updates", "steps", ",", "Steps that changed the policy", Shown.OUTCOME, default=0)
    wall_seconds: float = _figure("time", "s", ",.0f", "From the start to the end of the run", Shown.CARD, default=0.0)


def figures_in(message: type[Message], where: Shown = EVERYWHERE) -> dict[str, Figure]:
    """The figures of a message that are shown `where`, by name."""
    found = {name: field.json_schema_extra for name, field in message.model_fields.items()}
    return {name: one for name, one in found.items() if isinstance(one, Figure) and one.shown & where}


def charts(where: Shown) -> Iterator[Chart]:
    """The charts of a step's figures that are shown `where`."""
    figures_of: dict[str, dict[str, Figure]] = defaultdict(dict)
    for name, figure in figures_in(StepFigures, where).items():
        title = figure.chart or figure.label
        figures_of[title[0].upper() + title[1:]][name] = figure
    return (Chart(title, figures) for title, figures in figures_of.items())
