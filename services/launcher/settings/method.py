"""Which part of a preset is its method; the rest is a task's: budget, learning rate, temperature, limits, machines."""

from typing import Any

from shared.runtime.config import Tables

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
