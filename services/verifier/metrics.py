"""What the verifier counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_JUDGE_BUCKETS = (1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


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
        self.refused_batches = Counter(
            "ibtpo_verifier_refused_batches", "Batches refused.", ("reason",), registry=registry
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
