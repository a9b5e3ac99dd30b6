"""`ibtpo config`: explains keys, prints the configuration of a preset and settings, or says how two presets differ."""

import json
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from services.launcher.settings.difference import compare
from services.launcher.settings.plan import SECTIONS, preview
from services.learner.loss_terms import SURROGATES, TERMS
from shared.kinds import is_path
from shared.runtime.config import ConfigError, Key, find_keys, walk_keys
from shared.runtime.config.keys import named_parts
from shared.runtime.config.overrides import parse_value
from shared.tree.credit import CREDITS
from shared.tree.samplers import SAMPLERS
from shared.tree.values import VALUES


def explain(preset: str | None, settings: tuple[str, ...]) -> int:
    """Prints every key; given names (`lr`) or import paths, those keys, with those of parts of the user's own that are
    named beside them; given a preset or `key=value` alone, the effective TOML file."""
    console = Console()
    names = [one for one in settings if "=" not in one]
    if names and preset is None:
        own = [path for one in settings for path in named_parts(parse_value(one.partition("=")[2] or one))]
        for path in filter(is_path, names):
            _refuse_other(path)
        for name in names:
            keys = find_keys(name, SECTIONS, own)
            console.print(_render_keys(keys) if keys else f"{name} has no settings")
    elif preset is not None or settings:
        text = preview(preset or "demo", settings)
        if console.is_terminal:
            console.print(Syntax(text, "toml", background_color="default"))
        else:
            print(text, end="")
    else:
        for section, model in SECTIONS.items():
            console.print(_render_keys(walk_keys(section, model), title=section))
            console.print()
        print("`ibtpo presets` lists the presets; `ibtpo config --diff A B` says how two differ")
    return 0


def _refuse_other(path: str) -> None:
    """ConfigError, with the reason, for an import path of no part."""
    reasons = []
    for kinds in (SAMPLERS, CREDITS, VALUES, TERMS, SURROGATES):
        try:
            kinds.class_of(path)
            return
        except ValueError as error:
            reasons.append(str(error))
    is_other = all("write it as a class that subclasses" in one for one in reasons)
    parts = "sampler, credit, value estimator, loss term or surrogate"
    raise ConfigError(f"{path} is no {parts} (docs/own-parts.md)" if is_other else reasons[0])


def explain_difference(presets: tuple[str, str], settings: tuple[str, ...], *, as_json: bool) -> int:
    """Prints every key whose values differ between two presets; the settings count for the second."""
    found = compare(*presets, settings)
    if as_json:
        print(json.dumps({one.key: [one.before, one.after] for one in found}, indent=1, ensure_ascii=False))
        return 0
    before, after = presets[0], f"{presets[1]}*" if settings else presets[1]
    if settings:
        print(f"*: with {' '.join(settings)}")
    if not found:
        print(f"{before} and {after} do not differ")
        return 0
    console, longest = Console(), max(len(one.key) for one in found)
    table = Table(box=None, header_style="dim")
    table.add_column("key", overflow="fold", min_width=min(longest, console.width // 2))
    table.add_column(Text(before), overflow="fold")
    table.add_column(Text(after), overflow="fold")
    for one in found:
        table.add_row(*map(Text, (one.key, _format_value(one.before), _format_value(one.after))))
    console.print(table)
    return 0


def _format_value(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _render_keys(keys: Iterable[Key], title: str | None = None) -> Table:
    table = Table(box=None, header_style="dim", title_justify="left", title_style="bold")
    table.title = Text(f"[{title}]") if title else None
    table.add_column("key", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=36)
    table.add_column("meaning", overflow="fold", style="dim")
    for cells in describe_keys(keys):
        table.add_row(*map(Text, cells))
    return table


def describe_keys(keys: Iterable[Key]) -> Iterator[tuple[str, str, str]]:
    """(path, default, meaning); keys that several kinds of a table share share one line, which names the kinds."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for key in keys:
        kinds.setdefault((key.path, _format_default(key), key.description), []).append(key.kind)
    for (path, default, description), of_kinds in kinds.items():
        named = "" if path.endswith(".kind") else ", ".join(dict.fromkeys(kind for kind in of_kinds if kind))
        yield path, default, f"{named}: {description}" if named else description


def _format_default(key: Key) -> str:
    if key.is_required:
        return "required"
    if key.tables or key.name == "kind":
        return ""
    if isinstance(key.default, Enum):
        choices = [str(one.value) for one in type(key.default)]
        return f"{key.default.value}  ({' | '.join(choices)})" if len(choices) > 1 else str(key.default.value)
    return "–" if key.default is None or key.default == "" else str(key.default)
