"""What `learner.deterministic` asks of the services of a run on one machine (docs/deterministic.md)."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from shared.errors import InvalidInput
from shared.runtime.config import read_preset

_KEY = "learner.deterministic"
_FIXED: dict[str, Any] = {
    "learner.max_staleness": 0,
    "launcher.replicas": 1,
    "rollout.engine": "embedded",
    "rollout.max_trees": 1,
    "rollout.cache_bytes": 0,
}
"""One tree grows at a time, and what it is computed with depends on nothing that grew before."""


def deterministic_settings(
    source: Any, given: Mapping[str, Sequence[str]], sections: Mapping[str, type[BaseModel]]
) -> dict[str, list[str]]:
    """The settings by section, where the preset `source` or what is `given` asks for deterministic runs; they go before
    those given. InvalidInput where one given contradicts."""
    settings: dict[str, list[str]] = {section: [] for section in sections}
    stated = {
        key.strip(): value.strip() for each in given.values() for key, _, value in (one.partition("=") for one in each)
    }
    in_preset = str(read_preset(source, sections).get("learner", {}).get("deterministic", False)).lower()
    if stated.get(_KEY, in_preset) != "true":
        return settings
    for key, value in _FIXED.items():
        wanted = stated.get(key, str(value)).strip("\"'")
        if wanted != str(value):
            raise InvalidInput(f"{_KEY} needs {key}={value}, and {wanted} is given: leave out {key}, or {_KEY}")
        settings[key.partition(".")[0]].append(f"{key}={value}")
    return settings
