"""The SGLang engine's Prometheus series: what the replica sees of its server, and the server's own series."""

from collections.abc import Iterator
from enum import StrEnum

from prometheus_client import CollectorRegistry, Gauge, Histogram, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from shared.runtime.counters import preset_counter

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)


class StartCause(StrEnum):
    FIRST = "first"
    LOST = "lost"
    """It exited, hung, or served weights that were not loaded from here."""
    TAINTED = "tainted"
    """A weight update did not clearly succeed."""


class RequestResult(StrEnum):
    DONE = "done"
    FAILED = "failed"
    """Refused, or the answer cannot be read."""
    LOST = "lost"
    """The server went away or dropped it: it is retried."""
    GIVEN_UP = "given_up"
    """Nobody waits for it any more, or its deadline passed."""


class SglangMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge("ibtpo_rollout_engine_up", "Whether the engine's server serves now", registry=registry)
        self.starts = preset_counter(
            "ibtpo_rollout_engine_starts_total", "Starts of the engine's server by cause", registry, cause=StartCause
        )
        self.requests = preset_counter(
            "ibtpo_rollout_engine_requests_total", "Tries of requests by result", registry, result=RequestResult
        )
        self.in_flight = Gauge(
            "ibtpo_rollout_engine_requests_in_flight", "Requests that the server works on", registry=registry
        )
        self.calls = Gauge(
            "ibtpo_rollout_engine_calls", "Requests asked for, those in flight among them", registry=registry
        )
        self.pause_seconds = Histogram(
            "ibtpo_rollout_engine_pause_seconds",
            "Time without a sampled token while weights are replaced",
            buckets=_SECONDS,
            registry=registry,
        )


class SglangSeries(Collector):
    """The series that the server reported last, passed on with the replica's; none while it is down."""

    def __init__(self) -> None:
        self._families: tuple[Metric, ...] = ()

    def show(self, text: str) -> None:
        """Takes the text of the server's /metrics, empty while it is down. ValueError for text in another format."""
        self._families = tuple(
            _drop_model_path(family)
            for family in text_string_to_metric_families(text)
            if family.name.startswith("sglang:")
        )

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _drop_model_path(family: Metric) -> Metric:
    """Removes the label with the model's path, which changes with every weight version."""
    family.samples = [
        sample._replace(labels={name: value for name, value in sample.labels.items() if name != "model_name"})
        for sample in family.samples
    ]
    return family
