"""The verifier's metrics."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.protocol.verdict import Outcome
from shared.runtime.counters import preset_counter

_JUDGE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class BatchRefusal(StrEnum):
    """Why a batch was refused."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    """One of its kinds cannot be judged here."""


class WorkerEnd(StrEnum):
    """Why a worker process was ended."""

    DIED = "died"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Its caller stopped waiting."""
    MEMORY = "memory"
    RECYCLED = "recycled"
    """It had made enough calls, or used much memory."""


class VerifierMetrics:
    """The verifier's metrics, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.verdicts = Counter("ibtpo_verifier_verdicts", "Verdicts given.", ("kind", "outcome"), registry=registry)
        self.judge_seconds = Histogram(
            "ibtpo_verifier_judge_seconds",
            "Time of judging one item, without its wait.",
            ("kind",),
            buckets=_JUDGE_BUCKETS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "ibtpo_verifier_batch_seconds", "Time from a batch's arrival to its last verdict.", registry=registry
        )
        self.pending_items = Gauge(
            "ibtpo_verifier_pending_items", "Items accepted and not yet judged.", registry=registry
        )
        self.queue_age_seconds = Gauge(
            "ibtpo_verifier_queue_age_seconds", "Age of the oldest batch that still waits.", registry=registry
        )
        self.refused_batches = preset_counter(
            "ibtpo_verifier_refused_batches", "Batches refused.", registry, reason=BatchRefusal
        )
        self.cache_hits = Counter(
            "ibtpo_verifier_cache_hits", "Items whose judgement was known already.", ("kind",), registry=registry
        )
        self.worker_kills = Counter(
            "ibtpo_verifier_worker_kills", "Worker processes ended early.", ("kind", "reason"), registry=registry
        )
        self.worker_starts = Counter(
            "ibtpo_verifier_worker_starts", "Worker processes started.", ("kind",), registry=registry
        )

    def add_kind(self, kind: str) -> None:
        """Creates the series of a kind's verdicts, so that rates and alerts begin at 0."""
        for outcome in Outcome:
            self.verdicts.labels(kind, outcome)

    def add_pool(self, kind: str) -> None:
        """Creates the series of a kind's worker kills."""
        for reason in WorkerEnd:
            self.worker_kills.labels(kind, reason)
