"""SGLang's own series, passed on with the replica's: one scrape target each."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class SglangSeries(Collector):
    """What the server said last; nothing while it is down."""

    def __init__(self) -> None:
        self._text = ""

    def show(self, text: str) -> None:
        """Takes what the server's /metrics said; empty when it is down."""
        self._text = text

    def describe(self) -> Iterator[Metric]:
        """Nothing is known of the series before the server runs."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The server's own series; its model's path, which every weight version changes, is not passed on."""
        for family in text_string_to_metric_families(self._text):
            if not family.name.startswith("sglang:"):
                continue
            for index, sample in enumerate(family.samples):
                labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
                family.samples[index] = sample._replace(labels=labels)
            yield family
