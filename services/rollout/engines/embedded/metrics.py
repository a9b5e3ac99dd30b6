"""The embedded engine's counters, and the Prometheus series read from them at each scrape."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(slots=True)
class EmbeddedCounters:
    """Totals since the start, and two gauges: `rows_in_flight` and `waiting`.

    A request's tokens are `cached` (copied from the prefix cache) or `prefilled` (computed before the first token);
    `recomputed` ones belong to rows whose weights changed while they ran.
    """

    generated_tokens: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    evicted_tokens: int = 0
    recomputed_tokens: int = 0
    finished_requests: int = 0
    cancelled_requests: int = 0
    weight_changes: int = 0
    decodes: int = 0
    failed_decodes: int = 0
    decode_seconds: float = 0.0
    rows_in_flight: int = 0
    waiting: int = 0


class EmbeddedMetrics(Collector):
    """One per engine. Series that the SGLang engine has too have the same names."""

    def __init__(self, counters: EmbeddedCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """The counters' present values."""
        counters = self._counters
        yield GaugeMetricFamily(
            "ibtpo_rollout_engine_requests_in_flight", "Completions that the engine decodes", counters.rows_in_flight
        )
        yield GaugeMetricFamily("ibtpo_rollout_engine_requests_waiting", "Completions that wait", counters.waiting)
        requests = CounterMetricFamily(
            "ibtpo_rollout_engine_requests", "Tries of completions by result", labels=["result"]
        )
        requests.add_metric(["finished"], counters.finished_requests)
        requests.add_metric(["cancelled"], counters.cancelled_requests)
        yield requests
        tokens = CounterMetricFamily(
            "ibtpo_rollout_engine_tokens", "Tokens by what the engine did with them", labels=["mode"]
        )
        for mode in ("generated", "prefilled", "cached", "evicted", "recomputed"):
            tokens.add_metric([mode], getattr(counters, f"{mode}_tokens"))
        yield tokens
        yield CounterMetricFamily(
            "ibtpo_rollout_engine_weight_changes", "Changes of the weights", value=counters.weight_changes
        )
        yield CounterMetricFamily("ibtpo_rollout_engine_decodes", "Decodes of the batch", value=counters.decodes)
        yield CounterMetricFamily(
            "ibtpo_rollout_engine_failed_decodes", "Decodes whose batch failed", value=counters.failed_decodes
        )
        yield CounterMetricFamily(
            "ibtpo_rollout_engine_decode_seconds", "Time in decodes", value=counters.decode_seconds
        )
