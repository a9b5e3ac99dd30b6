"""Which part of a preset is its method; the rest is a task's: budget, learning rate, temperature, limits, machines."""

from collections.abc import Iterable
from typing import Any

from shared.runtime.config import Tables, merge_tables, read_preset

METHOD_KEYS = (
    "learner.method",
    "learner.advantage",
    "learner.objective",
    "learner.growth.sampler",
    "learner.growth.merge_equal_draws",
)


def take_method(preset: Tables) -> dict[str, dict[str, Any]]:
    """The method's part of a preset's tables."""
    method: dict[str, Any] = {}
    for key in METHOD_KEYS:
        *tables, name = key.split(".")
        source, target = preset, method
        for table in tables:
            source, target = source.get(table, {}), target.setdefault(table, {})
        if name in source:
            target[name] = source[name]
    return method


def settings_of_demo(learning_rate: float | None, sections: Iterable[str]) -> Tables:
    """What a run of the demo's task takes where nothing else says it: the preset demo, with the method's rate."""
    of_method = {"learner": {"optimizer": {"lr": learning_rate}}} if learning_rate else {}
    return merge_tables(read_preset("demo", sections), of_method)
