"""What /metrics says: a service's series and those of its process, each with the run that they belong to."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Exposition(Collector):
    """`run` becomes a label of every series, so that two runs are never added up; a service that works for any run has
    none."""

    def __init__(self, registry: CollectorRegistry, run: str | None) -> None:
        # the second reads /proc; where there is none, it has no series
        self._sources: tuple[Collector, ...] = (registry, ProcessCollector(registry=None))
        self._labels = {} if run is None else {"run": run}

    def collect(self) -> Iterator[Metric]:
        """Copies: a collector may keep what it gives."""
        for source in self._sources:
            for metric in source.collect():
                labelled = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                labelled.samples = [
                    sample._replace(labels={**self._labels, **sample.labels}) for sample in metric.samples
                ]
                yield labelled
