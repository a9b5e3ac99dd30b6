"""How two presets differ, key by key, once each is resolved against the keys' defaults."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.launcher.settings.deterministic import deterministic_settings
from services.launcher.settings.plan import SECTIONS
from shared.runtime.config import load_config, read_preset, resolve_overrides, without_secrets

_FILLED = {
    "learner.model": "none",
    "learner.data": "none",
    "learner.growth.sampler": "independent",
    "learner.total_steps": "1",
}
"""What a run must have and a preset need not: filled in to read the rest, and compared with nothing."""
_METHOD = "learner.method"
_OF_METHOD = {
    "learner.advantage": "learner.advantage.kind",
    "learner.growth.sampler.score": "learner.growth.sampler.kind",
}
"""Tables that take what they do not state from the method, each with the key that says of which kind it is."""

_SECRET = re.compile(r"[._](token|password|secret|api_?key)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A key and its values, as JSON holds them; None where there is no such key, as in a sampler of another kind."""

    key: str
    before: Any
    after: Any


def compare(before: str, after: str, settings: Sequence[str] = ()) -> list[SettingDifference]:
    """The keys whose values differ between two presets, by name or path; `settings` count for the second."""
    left, right = resolve(before), resolve(after, settings)
    keys = [*left]
    for key in right:
        _place(key, keys)
    pairs = ((key, _find(key, left, right), _find(key, right, left)) for key in keys)
    return [SettingDifference(key, _hide(key, one), _hide(key, other)) for key, one, other in pairs if one != other]


def resolve(preset: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The value of every key that the services of a run would have, by the key's path."""
    tables, given = read_preset(preset, SECTIONS), resolve_overrides(settings, SECTIONS)
    fixed = deterministic_settings(preset, given, SECTIONS)
    given = {section: [*fixed[section], *stated] for section, stated in given.items()}
    overridden = (one.partition("=")[0] for each in given.values() for one in each)
    filled = _find_unstated([*dict(_flatten("", tables)), *overridden])
    values: dict[str, Any] = {}
    for section, model in SECTIONS.items():
        fills = [f"{key}={_FILLED[key]}" for key in filled if key.startswith(f"{section}.")]
        config = load_config(model, section, tables, [*fills, *given[section]])
        values |= _flatten(section, config.model_dump(mode="json", exclude_none=True))
    return {key: value for key, value in values.items() if not _is_in(key, filled)}


def _find_unstated(stated: Sequence[str]) -> list[str]:
    """What must be filled in."""
    ends = "learner.max_generated_tokens" in stated
    missing = (key for key in _FILLED if not any(_is_in(one, [key]) for one in stated))
    return [key for key in missing if not (ends and key == "learner.total_steps")]


def _is_in(key: str, tables: Iterable[str]) -> bool:
    return any(key == table or key.startswith(f"{table}.") for table in tables)


def _place(key: str, keys: list[str]) -> None:
    """Puts the key behind the last of those in its table, or in a table around it, unless it is there."""
    if key in keys:
        return
    table = key
    while table:
        table = table.rpartition(".")[0]
        behind = [nth + 1 for nth, one in enumerate(keys) if _is_in(one, [table])]
        if behind:
            keys.insert(behind[-1], key)
            return
    keys.append(key)


def _find(key: str, values: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
    """The key's value; where the other side states it for a part of the same kind, that of the method."""
    if key in values:
        return values[key]
    for table, kind in _OF_METHOD.items():
        if _is_in(key, [table]) and values.get(kind) == others.get(kind):
            return values.get(f"{_METHOD}{key.removeprefix(table)}")
    return None


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values in tables of tables, each with its path; an empty table has none."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for name, inner in value.items():
        yield from _flatten(f"{path}.{name}" if path else name, inner)


def _hide(key: str, value: Any) -> Any:
    """The value, unless it is a secret, or the part of it that is none."""
    if value is not None and _SECRET.search(key):
        return "***"
    return without_secrets(value) if isinstance(value, str) and key.endswith("url") else value
