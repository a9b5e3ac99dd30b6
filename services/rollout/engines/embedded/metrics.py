"""The embedded engine's counters, and the Prometheus series read from them at each scrape."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PAUSE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


def _pauses() -> Histogram:
    return Histogram(
        "ibtpo_rollout_engine_pause_seconds",
        "Time without a sampled token while weights are replaced",
        buckets=_PAUSE_SECONDS,
        registry=None,
    )


@dataclass(slots=True, eq=False)
class EmbeddedCounters(Collector):
    """Totals since the start, two gauges, `rows_in_flight` and `waiting`, and how long weight changes stopped decoding.

    A request's tokens are `cached` (copied from the prefix cache) or `prefilled` (computed before the first token);
    `scored` ones were given, not `generated`; `recomputed` ones belong to rows whose weights changed while they ran.
    """

    generated_tokens: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    scored_tokens: int = 0
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
    pauses: Histogram = field(default_factory=_pauses)

    @property
    def computed_tokens(self) -> int:
        """Those that went through the model for requests."""
        return self.generated_tokens + self.scored_tokens + self.prefilled_tokens

    def collect(self) -> Iterator[Metric]:
        """The present values. Series that the SGLang engine has too have the same names."""
        named = "ibtpo_rollout_engine_{}".format
        yield GaugeMetricFamily(named("requests_in_flight"), "Requests that the engine decodes", self.rows_in_flight)
        yield GaugeMetricFamily(named("requests_waiting"), "Requests that wait", self.waiting)
        requests = CounterMetricFamily(named("requests"), "Tries of requests by result", labels=["result"])
        for result in ("finished", "cancelled"):
            requests.add_metric([result], getattr(self, f"{result}_requests"))
        yield requests
        tokens = CounterMetricFamily(named("tokens"), "Tokens by what the engine did with them", labels=["mode"])
        for mode in ("generated", "scored", "prefilled", "cached", "evicted", "recomputed"):
            tokens.add_metric([mode], getattr(self, f"{mode}_tokens"))
        yield tokens
        for name, text in (
            ("weight_changes", "Changes of the weights"),
            ("decodes", "Decodes of the batch"),
            ("failed_decodes", "Decodes whose batch failed"),
            ("decode_seconds", "Time in decodes"),
        ):
            yield CounterMetricFamily(named(name), text, value=getattr(self, name))
        yield from self.pauses.collect()
