"""The learner's Prometheus series."""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.learner.ledger import End
from shared.protocol.figures import Shown, StepFigures, figures_in
from shared.protocol.replica import ReplicaState
from shared.protocol.status import AccuracyFigures, Evaluation, RunState, RunStatus
from shared.protocol.tree import ScoredTree
from shared.protocol.waiting import WaitKind
from shared.protocol.weights import Encoding
from shared.runtime.counters import preset_counter

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_MEASURES = tuple(name for name in AccuracyFigures.model_fields if name != "problems")
"""Of an accuracy; `standard_error` is that of avg@k."""
_GAUGES = figures_in(StepFigures, Shown.GAUGE)
_MAX_OWN_TERMS = 16
"""So many of a configuration's own loss terms have a series; metrics.jsonl has all."""
_named = "ibtpo_learner_{}".format
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


class StepResult(StrEnum):
    UPDATED = "updated"
    NO_SIGNAL = "no_signal"
    """No tree had a signal."""
    REFUSED = "refused"
    """Its gradient was NaN or infinite."""


class Phase(StrEnum):
    INTAKE = "intake"
    UPDATE = "update"
    PUBLISH = "publish"
    CHECKPOINT = "checkpoint"
    """After the step before."""


class PushResult(StrEnum):
    LOADED = "loaded"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    """A newer learner has the replica."""


class Blocked(StrEnum):
    """What training waits for so that its weights are published."""

    COPY = "copy"
    """Of the weights."""
    ACT = "act"
    """The learner's own reading of the act-probe."""
    WRITING = "writing"
    """Of earlier weights: two copies are in memory."""
    REPLICAS = "replicas"
    """They would leave the staleness bound, or all must have the weights."""


class EvaluationResult(StrEnum):
    DONE = "done"
    FAILED = "failed"


class LearnerMetrics:
    """One set per process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        tokens = partial(Histogram, buckets=_TOKENS, registry=registry)
        preset = partial(preset_counter, registry=registry)
        self.steps = preset(_named("steps_total"), "Steps by result", result=StepResult)
        counted = figures_in(StepFigures, Shown.COUNTER)
        self._counters = {name: counter(_named(name), figure.help) for name, figure in counted.items()}
        self.judged_draws = counter(_named("judged_draws_total"), "Draws with a reward in trees of steps", ["kind"])
        self.rewards = counter(_named("rewards_total"), "Sum of the rewards of judged draws", ["kind"])
        self.phase_seconds = seconds(_named("phase_seconds"), "Time of a step by phase", ["phase"])
        for phase in Phase:
            self.phase_seconds.labels(phase)
        self.used_tokens = tokens(_named("used_trajectory_tokens"), "Answer lengths in trees that steps used")
        self.stale_tokens = tokens(
            _named("stale_trajectory_tokens"),
            "Answer lengths in trees dropped as stale: dropping the longer ones is a bias",
        )
        self.refused = counter(_named("trees_refused_total"), "Trees that cannot be read or trained on")
        self.stream_failures = counter(_named("stream_failures_total"), "Calls that found Redis unreachable or full")
        self.pushes = preset(
            _named("weight_pushes_total"), "Pushes of weights to a replica by result", result=PushResult
        )
        self.delivery_seconds = seconds(
            _named("weight_delivery_seconds"),
            "Time from an optimizer step until the last live replica served its weights or newer ones, or failed to",
        )
        self.sent_bytes = preset(
            _named("weight_sent_bytes_total"), "Bytes of weights sent to replicas by encoding", encoding=Encoding
        )
        self.blocked_seconds = preset(
            _named("publish_blocked_seconds_total"), "Time that training waited for its weights' way", by=Blocked
        )
        self.weight_faults = counter(
            _named("weight_faults_total"), "Times that a replica's weights did not act as published"
        )
        self.faulty_replicas = gauge(_named("faulty_replicas"), "Replicas whose weights do not act as published")
        self.version_number = gauge(_named("version_number"), "Number of the policy's version")
        self.generation = gauge(_named("generation"), "Generation of the policy's version")
        self.accuracy = gauge(
            _named("held_out_accuracy"), "Held-out accuracy of the last evaluation, averaged over sets", ["measure"]
        )
        self.set_accuracy = gauge(_named("held_out_set_accuracy"), "The same of each held-out set", ["set", "measure"])
        self.own_terms = gauge(
            _named("own_term"), "Mean over tokens of a loss term of the user's own, in the last step", ["term"]
        )
        self.evaluations = preset(_named("evaluations_total"), "Evaluations by result", result=EvaluationResult)
        self.checkpoint_seconds = seconds(_named("checkpoint_seconds"), "Time to write a checkpoint")
        # registered with its first value: a 0 before that would be taken for one
        self._gauges = {name: Gauge(_named(name), figure.help, registry=None) for name, figure in _GAUGES.items()}
        self._unregistered = set(_GAUGES)

    def show_status(self, status: Callable[[], RunStatus]) -> None:
        """Adds the run's accounts, state, step, queues and replicas, read once per scrape."""
        self.registry.register(_StatusCollector(status))

    def record_step(self, figures: StepFigures, result: StepResult) -> None:
        """Records a finished step. A figure that is None keeps its last value."""
        self.steps.labels(result).inc()
        for name, series in self._counters.items():
            series.inc(getattr(figures, name))
        for phase in Phase:
            self.phase_seconds.labels(phase).observe(getattr(figures, f"{phase}_seconds"))
        for name in self._gauges:
            self._set(name, getattr(figures, name))
        for term, mean in islice(figures.own_terms.items(), _MAX_OWN_TERMS):
            self.own_terms.labels(term).set(mean)

    def record_stale(self, tree: ScoredTree) -> None:
        for draw in tree.draws:
            self.stale_tokens.observe(draw.end)

    def record_used(self, tree: ScoredTree) -> None:
        for draw in tree.draws:
            self.used_tokens.observe(draw.end)
        rewards = tree.rewards
        self.judged_draws.labels(tree.task.kind).inc(len(rewards))
        self.rewards.labels(tree.task.kind).inc(sum(rewards))

    def record_evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.labels(EvaluationResult.DONE).inc()
        self._set("engine_gap", evaluation.engine_gap)
        if not evaluation.is_partial:  # another average than the one before
            for measure, value in _measures(evaluation):
                self.accuracy.labels(measure).set(value)
        for one in evaluation.sets:
            for measure, value in _measures(one):
                self.set_accuracy.labels(one.name, measure).set(value)

    def _set(self, name: str, value: float | None) -> None:
        if value is None:
            return
        self._gauges[name].set(value)
        if name in self._unregistered:
            self._unregistered.remove(name)
            self.registry.register(self._gauges[name])


def _measures(accuracy: AccuracyFigures) -> Iterator[tuple[str, float]]:
    """The figures that it has, by name."""
    for name in _MEASURES:
        if (value := getattr(accuracy, name)) is not None:
            yield name, value


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], RunStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Of one status: in every scrape fed = Σ ended + outstanding."""
        status = self._status()
        accounts, replicas = status.accounts, [replica.state for replica in status.replicas]
        counter, gauge = CounterMetricFamily, GaugeMetricFamily
        yield counter(_named("tasks_fed"), "Tasks fed, each attempt", value=accounts.fed)
        yield gauge(_named("tasks_outstanding"), "Tasks fed that have not ended", value=accounts.outstanding)
        ended = {end.value: getattr(accounts, end.value) for end in End}
        yield _by_label(counter, "tasks_ended", "Tasks by how they ended", "end", ended)
        unmatched = {"duplicate": accounts.duplicates, "foreign": accounts.foreign}
        yield _by_label(counter, "trees_unmatched", "Results that match no outstanding task", "reason", unmatched)
        states = {state.value: state is status.state for state in RunState}
        yield _by_label(gauge, "run_state", "1 for the run's state, else 0", "state", states)
        yield gauge(_named("step"), "Steps taken", value=status.step)
        entries = gauge(_named("stream_entries"), "Entries on the run's streams", labels=["stream", "state"])
        entries.add_metric(["tasks", "queued"], status.queued_tasks)
        entries.add_metric(["tasks", "pending"], status.pending_tasks)
        entries.add_metric(["trees", "queued"], status.queued_trees)
        yield entries
        live = {state.value: replicas.count(state) for state in ReplicaState}
        yield _by_label(gauge, "replicas", "Live rollout replicas by state", "state", live)
        waiting = status.waiting_for
        idle = {
            kind.value: status.time - waiting.moved if waiting and waiting.kind is kind else 0.0 for kind in WaitKind
        }
        yield _by_label(gauge, "waiting_seconds", "Since what the learner waits for came forward", "what", idle)
        silent = {str(rank): seconds for rank, seconds in enumerate(status.rank_silent_seconds)}
        yield _by_label(gauge, "rank_silent_seconds", "Since a rank of several gave a sign of life", "rank", silent)


def _by_label(kind: type[Family], name: str, documentation: str, label: str, values: Mapping[str, float]) -> Family:
    family = kind(_named(name), documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
