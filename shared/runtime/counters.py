"""Counters whose label values are known from the start."""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter


def preset_counter(name: str, text: str, registry: CollectorRegistry, **values: Iterable[str]) -> Counter:
    """A counter with all its children, `values` by label, at 0 from the start.

    A child that appears with its first event appears at 1: Prometheus sees no increase, and raises no alert.
    """
    known = {label: tuple(of_label) for label, of_label in values.items()}
    counter = Counter(name, text, tuple(known), registry=registry)
    for chosen in product(*known.values()):
        counter.labels(*chosen)
    return counter
