"""Counters whose label values are all known beforehand."""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter


def closed_counter(name: str, text: str, registry: CollectorRegistry, **values: Iterable[str]) -> Counter:
    """A counter that shows all of its children, `values` by label, at 0 from the start.

    One that is born with its first event is born at 1: Prometheus sees no increase, and no alert.
    """
    known = {label: tuple(of_label) for label, of_label in values.items()}
    counter = Counter(name, text, tuple(known), registry=registry)
    for chosen in product(*known.values()):
        counter.labels(*chosen)
    return counter
