"""`ibtpo config`: explains keys, or prints the configuration of a preset and settings."""

from collections.abc import Iterable, Iterator
from enum import Enum

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from services.launcher.settings.plan import SECTIONS, preview
from shared.runtime.config import Key, find_keys, preset_names, preset_path, walk_keys


def explain(preset: str | None, settings: tuple[str, ...]) -> int:
    """Prints every key; given names (`lr`), those keys; given a preset or `key=value`, the effective TOML file."""
    console = Console()
    if settings and preset is None and not any("=" in one for one in settings):
        console.print(_render_keys(key for name in settings for key in find_keys(name, SECTIONS)))
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
        console.print(_render_presets())
    return 0


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
        named = "" if path.endswith(".kind") else ", ".join(kind for kind in of_kinds if kind)
        yield path, default, f"{named}: {description}" if named else description


def _format_default(key: Key) -> str:
    if key.is_required:
        return "required"
    if key.tables or (key.name == "kind" and key.kind):
        return ""
    if isinstance(key.default, Enum):
        choices = [str(one.value) for one in type(key.default)]
        return f"{key.default.value}  ({' | '.join(choices)})" if len(choices) > 1 else str(key.default.value)
    return "–" if key.default is None or key.default == "" else str(key.default)


def _render_presets() -> Table:
    table = Table(title="presets", title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for name in preset_names():
        first = preset_path(name).read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(name, first.lstrip("# ") if first.startswith("#") else "")
    return table
