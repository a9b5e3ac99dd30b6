"""SGLang's own series, passed on with the replica's: one scrape target each."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class SglangSeries(Collector):
    """What the server said last; nothing while it is down."""

    def __init__(self) -> None:
        self._families: tuple[Metric, ...] = ()

    def show(self, text: str) -> None:
        """Takes what the server's /metrics said, empty when it is down. ValueError when it is no such text."""
        self._families = tuple(
            _without_path(family)
            for family in text_string_to_metric_families(text)
            if family.name.startswith("sglang:")
        )

    def describe(self) -> Iterator[Metric]:
        """Nothing is known of the series before the server runs."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The server's own series."""
        return iter(self._families)


def _without_path(family: Metric) -> Metric:
    """The family without its model's path, which every weight version changes."""
    family.samples = [
        sample._replace(labels={name: value for name, value in sample.labels.items() if name != "model_name"})
        for sample in family.samples
    ]
    return family
