"""Reads `key=value` arguments: which key each means, and its value."""

import tomllib
from collections.abc import Sequence
from typing import Any

from shared.runtime.config.errors import ConfigError, unknown_key
from shared.runtime.config.keys import Key, Models, all_paths, match_paths, named_parts, shared_tables, walk_keys
from shared.runtime.config.presets import SECTIONS
from shared.runtime.config.renamed import RENAMED, RENAMED_SECTIONS, old_paths, refuse_old_section


def resolve_overrides(overrides: Sequence[str], models: Models) -> dict[str, list[str]]:
    """The overrides of each section, spelled in full (`section.table.key=value`), in the order given.

    A key may leave out its section and its tables where only one place has it. ConfigError, with the closest names,
    where none or several have it; an override of a section that is not in `models` is left out.
    """
    resolved: dict[str, list[str]] = {section: [] for section in models}
    own = named_parts({name: parse_value(text) for name, text in map(split_override, overrides)})
    paths, old = all_paths(models, own), tuple({path: None for section in models for path in old_paths(section)})
    for override in overrides:
        name, text = split_override(override)
        path = _resolve(name, models, paths, old, own)
        section, _, key = path.partition(".")
        refuse_old_section(section, key, parse_value(text))
        if section in models:
            resolved[section].append(f"{path}={text}")
    return resolved


def find_keys(name: str, models: Models, own: Sequence[str] = ()) -> list[Key]:
    """Every key called `name`, and the keys in it where it is a table; those of a part of the user's own where it is
    an import path. ConfigError when there is none."""
    keys = [key for section, model in models.items() for key in walk_keys(section, model, own=own)]
    found = [key for key in keys if f".{name}." in f".{key.path}." or key.kind == name]
    if not found and name not in own:
        for one in RENAMED:
            if f".{one.old}.".endswith(f".{name}."):
                raise ConfigError(f"{name} was renamed to {one.new}{one.note}: `ibtpo config {one.new}` explains it")
        raise ConfigError(unknown_key(name, models, own))
    return found


def split_override(override: str) -> tuple[str, str]:
    """The key and the value's text."""
    name, equals, text = override.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"an override reads key=value or section.key=value, not {override!r}")
    return ".".join(parts), text.strip()


def _resolve(name: str, models: Models, paths: Sequence[str], old: Sequence[str], own: Sequence[str]) -> str:
    shared = tuple(f"{table}." for table in shared_tables(models))
    section, _, below = name.partition(".")
    if below and section not in models and (section in SECTIONS or section in RENAMED_SECTIONS):
        return name
    found = match_paths(name, paths) or match_paths(name, old)  # an old name is refused where its value is read
    if not found:
        raise ConfigError(unknown_key(name, models, own))
    if len(found) > 1:  # what several tables take from a shared one is meant there
        found = [path for path in found if path.startswith(shared)] or found
    if len(found) > 1:
        raise ConfigError(f"{name!r} could be {' or '.join(found)}: write which")
    return found[0]


def parse_value(text: str) -> Any:
    """An override's text as a TOML value, or as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_BARE = {"data": "source", "held_out": "source"}
"""The key that the bare name of these tables, or of one in them, stands for, where it is not `kind`."""


def set_value(table: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value below `table`, whose inner tables are copied; a table given by its bare name becomes one."""
    for part in path[:-1]:
        inner = table.get(part, {})
        if isinstance(inner, str):
            inner = {_BARE.get(path[0], "kind"): inner}  # as sampler = "ib"
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: {part} holds a value, not keys of its own")
        table[part] = dict(inner)
        table = table[part]
    table[path[-1]] = value
