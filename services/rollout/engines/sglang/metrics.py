"""The SGLang engine's Prometheus series: what the replica sees of its server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)


class SglangMetrics:
    """One set per engine, in the replica's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("ibtpo_rollout_engine_up", "Whether the engine's server serves now", registry=registry)
        self.starts = Counter(
            "ibtpo_rollout_engine_starts_total",
            "Starts of the engine's server by cause",
            ["cause"],
            registry=registry,
        )
        self.requests = Counter(
            "ibtpo_rollout_engine_requests_total", "Tries of completions by result", ["result"], registry=registry
        )
        self.in_flight = Gauge(
            "ibtpo_rollout_engine_requests_in_flight", "Completions that the server works on", registry=registry
        )
        self.waiting = Gauge(
            "ibtpo_rollout_engine_requests_waiting", "Completions that wait for a place or a sibling", registry=registry
        )
        self.pause_seconds = Histogram(
            "ibtpo_rollout_engine_pause_seconds",
            "Time without a sampled token while weights are replaced",
            buckets=_SECONDS,
            registry=registry,
        )
