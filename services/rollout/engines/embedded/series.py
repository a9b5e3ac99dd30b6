"""The embedded engine's Prometheus series, read from its counters at each scrape."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.rollout.engines.embedded.counters import EngineCounters


class EngineSeries(Collector):
    """Register one per engine. What SGLang has too bears the same name."""

    def __init__(self, counters: EngineCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """All of the counters, as they are now."""
        seen = self._counters
        yield GaugeMetricFamily(
            "ibtpo_rollout_engine_requests_in_flight", "Completions that the engine decodes", seen.rows_in_flight
        )
        yield GaugeMetricFamily(
            "ibtpo_rollout_engine_requests_waiting", "Completions that wait for a place", seen.waiting
        )
        requests = CounterMetricFamily(
            "ibtpo_rollout_engine_requests", "Tries of completions by result", labels=["result"]
        )
        requests.add_metric(["finished"], seen.finished_requests)
        requests.add_metric(["cancelled"], seen.cancelled_requests)
        yield requests
        tokens = CounterMetricFamily(
            "ibtpo_rollout_engine_tokens", "Tokens by what the engine did with them", labels=["mode"]
        )
        for mode in ("generated", "prefilled", "cached", "evicted", "recomputed"):
            tokens.add_metric([mode], getattr(seen, f"{mode}_tokens"))
        yield tokens
        yield CounterMetricFamily("ibtpo_rollout_engine_weight_changes", "Changes of the weights", value=seen.swaps)
        yield CounterMetricFamily("ibtpo_rollout_engine_decodes", "Decodes of the batch", value=seen.steps)
        yield CounterMetricFamily(
            "ibtpo_rollout_engine_failed_decodes", "Decodes whose batch failed", value=seen.failed_steps
        )
        yield CounterMetricFamily("ibtpo_rollout_engine_decode_seconds", "Time in decodes", value=seen.step_seconds)
