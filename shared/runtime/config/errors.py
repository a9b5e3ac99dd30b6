"""Explains what is wrong with a configuration: the key, its value, and what to write instead."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidInput, shorten
from shared.kinds import is_path
from shared.runtime.config.keys import Models, all_paths, walk_keys

_SECRET_KEYS = frozenset({"token", "redis_url"})


class ConfigError(InvalidInput):
    """The configuration cannot be used; the message names the key, its value and the remedy."""

    title = "invalid configuration"


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the known names closest to `word`; without a close one, all of them if they are few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else "; `ibtpo config` shows every key"


def unknown_key(path: str, models: Models, own: Sequence[str] = ()) -> str:
    """Says that no key is called `path`, and which were perhaps meant: those of the same name, or of a close one."""
    paths = all_paths(models, own)
    parent, _, leaf = path.rpartition(".")
    if kinds := _kinds_with(path, models):
        return f"{path} is a setting of {', '.join(kinds)}, and here is another kind"
    same_name = [known for known in paths if known.rpartition(".")[2] == leaf]
    if same_name:
        return f"unknown key {path}; did you mean {' or '.join(same_name)}?"
    siblings = [known.rpartition(".")[2] for known in paths if known.rpartition(".")[0] == parent]
    if parent and siblings:
        return f"unknown key {path}{suggest(leaf, siblings)}"
    names = [known.rpartition(".")[2] for known in paths]
    return f"unknown key {path}{suggest(path, [*names, *paths, *models])}"


def _kinds_with(path: str, models: Models) -> list[str]:
    """The kinds of a table that have this key, where not every kind has it."""
    keys = (key for section, model in models.items() for key in walk_keys(section, model) if key.path == path)
    return [key.kind for key in keys if key.kind]


def explain(section: str, values: Mapping[str, Any], models: Models, error: ValidationError) -> str:
    """All that pydantic found wrong in `values`, by key."""
    lines = []
    for item in error.errors():
        path = error_path(item["loc"], values)
        key = ".".join((section, *path))
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(_unknown_setting(section, path, values, models) or unknown_key(key, models))
        elif item["type"] == "missing":
            lines.append(f"{key} is missing; give it in [{section}] of the preset or as {key}=…")
        elif item["type"] == "value_error" and not path:
            lines.append(f"{section}: {item['ctx']['error']}")
        else:
            shown = "***" if _SECRET_KEYS.intersection(path) else shorten(repr(item["input"]))
            said = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {shown}: {said[0].lower()}{said[1:]}")
    return "; ".join(lines)


def _unknown_setting(section: str, path: Sequence[str], values: Mapping[str, Any], models: Models) -> str:
    """Says which settings a part of the user's own has, where the unknown key is one of such a part; else nothing."""
    table: Any = values
    for part in path[:-1]:
        table = table[int(part)] if isinstance(table, list | tuple) else table.get(part, {})
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if not isinstance(kind, str) or not is_path(kind):
        return ""
    keys = (key for name, model in models.items() for key in walk_keys(name, model, own=(kind,)) if key.kind == kind)
    known = {key.name for key in keys}
    listed = f": it has {', '.join(sorted(known))}" if known else ", which has none"
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{'.'.join((section, *path))} is no setting of {kind}{listed}{meant}"


def error_path(location: Iterable[int | str], values: Any) -> tuple[str, ...]:
    """Where in `values` the error is: pydantic's location, without the tags that it adds for one of several kinds."""
    path = []
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            continue
        path.append(str(part))
        if isinstance(values, dict):
            values = values.get(part)
        else:
            values = values[part] if isinstance(values, list | tuple) and isinstance(part, int) else None
    return tuple(path)
