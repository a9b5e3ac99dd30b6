"""The rollout service's Prometheus series."""

from enum import StrEnum
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.protocol.tree import ScoredTree
from shared.runtime.counters import preset_counter
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import Finish, WeightVersion

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)


class TreeResult(StrEnum):
    GROWN = "grown"
    DISCARDED = "discarded"
    """Too few of its leaves had a verdict (METHOD, Ends)."""
    FAILED = "failed"
    RELEASED = "released"
    """This replica gave its task back; another one grows it."""
    DEAD_LETTER = "dead_letter"
    """Its task has had all its tries, or can never be grown."""
    UNREADABLE = "unreadable"
    """Its task was left to replicas of other releases, which may read it."""


class TokenSource(StrEnum):
    """Where tokens of prompts and prefixes came from."""

    CACHE = "cache"
    COMPUTED = "computed"


class VerdictResult(StrEnum):
    """What came of the request for one reward."""

    JUDGED = "judged"
    NULL = "null"
    """A verdict without a reward: the verifier itself failed."""
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    """Too many answers were waiting: it was not sent."""


class VerifierFailure(StrEnum):
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    UNREADABLE = "unreadable"


class ScoreResult(StrEnum):
    """What came of a given continuation that was to be scored."""

    SCORED = "scored"
    FAILED = "failed"
    GIVEN_UP = "given_up"
    """Its deadline passed, its caller left, or another one of its request failed."""


class ActResult(StrEnum):
    """What came of a reading of the act-probe."""

    READ = "read"
    FAILED = "failed"
    """The engine could not score it, or not in time; it is tried again."""


class LoadResult(StrEnum):
    LOADED = "loaded"
    REFUSED = "refused"


class RolloutMetrics:
    """One set per process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        closed = partial(preset_counter, registry=registry)
        named = "ibtpo_rollout_{}".format
        self.trees = closed(
            named("trees_total"),
            "Trees by how they ended (discarded: too few verdicts), tasks given up (dead_letter) or left (unreadable)",
            result=TreeResult,
        )
        self.draws = closed(named("draws_total"), "Draws by finish", finish=Finish)
        self.generated = counter(named("generated_tokens_total"), "Tokens sampled")
        self.prompt_tokens = closed(
            named("prompt_tokens_total"), "Tokens of prompts and prefixes by where they came from", source=TokenSource
        )
        self.reusable = counter(named("reusable_tokens_total"), "Prefix tokens that the same tree had computed before")
        self.tree_seconds = seconds(named("tree_seconds"), "Time to grow one tree")
        self.trees_in_flight = gauge(named("trees_in_flight"), "Trees being grown")
        self.scores = closed(named("scores_total"), "Continuations posted to be scored, by result", result=ScoreResult)
        self.scored_tokens = counter(named("scored_tokens_total"), "Given tokens whose log-probabilities were computed")
        self.unscored_draws = counter(
            named("unscored_draws_total"), "Draws without the likelihoods that were asked for"
        )
        self.verdicts = closed(named("verdicts_total"), "Verdicts asked for by result", result=VerdictResult)
        self.verifier_failures = closed(
            named("verifier_failures_total"), "Failed verifier requests by error", error=VerifierFailure
        )
        self.weight_loads = closed(named("weight_loads_total"), "Weight loads by result", result=LoadResult)
        self.weight_load_seconds = seconds(
            named("weight_load_seconds"), "Loading one version, from the disk into the engine"
        )
        self.generation = gauge(named("weight_generation"), "Generation of the weights")
        self.number = gauge(named("weight_number"), "Number of the weights served")
        self.weights_stale = gauge(named("weights_stale"), "1 while the run would use no tree of the weights served")
        self.act_readings = closed(named("act_readings_total"), "Readings of the act-probe by result", result=ActResult)
        self.act_distance = gauge(
            named("act_distance"), "Nats between the act-probe's log-probabilities here and in the learner"
        )
        self.weight_faults = counter(
            named("weight_faults_total"), "Times that served weights did not act as published and were loaded afresh"
        )
        self.weights_faulty = gauge(named("weights_faulty"), "1 while the weights served do not act as published")
        self.ib_score = Histogram(
            named("ib_score"),
            "Mean IB-Score of a tree's nodes with two draws or more",
            buckets=(-6, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 6),
            registry=registry,
        )
        self.mixed = counter(named("mixed_trees_total"), "Trees whose rewards are not all equal (Eff-Rate's numerator)")

    def record_tree(self, tree: ScoredTree, figures: TreeFigures) -> None:
        usage = tree.usage
        self.trees.labels(TreeResult.GROWN).inc()
        for draw in tree.draws:
            self.draws.labels(draw.finish).inc()
        self.generated.inc(usage.generated_tokens)
        self.prompt_tokens.labels(TokenSource.CACHE).inc(usage.cached_tokens)
        self.prompt_tokens.labels(TokenSource.COMPUTED).inc(usage.prompt_tokens - usage.cached_tokens)
        self.reusable.inc(usage.reusable_tokens)
        self.scored_tokens.inc(usage.scored_tokens)
        self.unscored_draws.inc(usage.unscored_draws)
        self.tree_seconds.observe(usage.seconds)
        self.mixed.inc(figures.mixed_trees)
        if figures.ib_score is not None:
            self.ib_score.observe(figures.ib_score)

    def record_failure(self, *, is_discarded: bool) -> None:
        """Counts a tree that was discarded for too few verdicts (METHOD, Ends), or that failed otherwise."""
        self.trees.labels(TreeResult.DISCARDED if is_discarded else TreeResult.FAILED).inc()

    def record_score(self, result: ScoreResult, num_tokens: int) -> None:
        """Counts a continuation of so many tokens."""
        self.scores.labels(result).inc()
        if result is ScoreResult.SCORED:
            self.scored_tokens.inc(num_tokens)

    def record_load(self, version: WeightVersion, seconds: float) -> None:
        self.weight_loads.labels(LoadResult.LOADED).inc()
        self.weight_load_seconds.observe(seconds)
        self.generation.set(version.generation)
        self.number.set(version.number)
