"""`ibtpo config`: what every setting means, or what a preset comes to."""

import dataclasses
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from services.launcher.settings.plan import SECTIONS, preview
from shared.runtime.config import preset_names, preset_path

_REQUIRED = "required"


def explain(preset: str | None, overrides: tuple[str, ...]) -> int:
    """Without a preset: every setting with its default. With one: the effective configuration, as a TOML file."""
    console = Console()
    if preset is not None or overrides:
        text = preview(preset or "demo", overrides)
        if console.is_terminal:
            console.print(Syntax(text, "toml", background_color="default"))
        else:
            print(text, end="")
        return 0
    for name, model in SECTIONS.items():
        console.print(_table(name, model))
        console.print()
    console.print(_presets())
    return 0


def _table(section: str, model: type[BaseModel]) -> Table:
    table = Table(title=Text(f"[{section}]"), title_justify="left", title_style="bold", box=None, header_style="dim")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold", max_width=36)
    table.add_column("meaning", overflow="fold", style="dim")
    for path, default, meaning in settings(section, model):
        table.add_row(path, default, meaning)
    return table


def settings(prefix: str, model: type[Any]) -> Iterator[tuple[str, str, str]]:
    """(full name, default, meaning) of every setting of a model and of the models in it."""
    for name, field in _fields(model):
        models, path = _models_in(field.annotation), f"{prefix}.{name}"
        if len(models) == 1:
            if field.description:
                yield path, "", field.description
            yield from settings(f"{path}.NAME" if get_origin(field.annotation) is dict else path, models[0])
        else:
            yield path, _default(field), field.description or "; ".join(map(_variant, models))


def _fields(model: type[Any]) -> Iterator[tuple[str, FieldInfo]]:
    if issubclass(model, BaseModel):
        yield from model.model_fields.items()
    else:
        for field in dataclasses.fields(model):
            default = _REQUIRED if field.default is dataclasses.MISSING else field.default
            yield field.name, FieldInfo(annotation=field.type, default=default)  # type: ignore[arg-type]


def _models_in(annotation: Any) -> list[type[Any]]:
    """The models that a setting may hold: one, or several to choose from."""
    return [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and _is_model(one)]


def _variant(model: type[Any]) -> str:
    """One of several models, by its `kind` and what else it takes."""
    fields = {name: _default(field) for name, field in _fields(model)}
    kind = fields.pop("kind", model.__name__)
    return f"{kind}: {', '.join(fields)}"


def _is_model(annotation: type[Any]) -> bool:
    return issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _REQUIRED
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Enum):
        choices = [str(one.value) for one in type(value)]
        return f"{value.value}  ({' | '.join(choices)})" if len(choices) > 1 else str(value.value)
    return "–" if value is None or value == "" else str(value)


def _presets() -> Table:
    table = Table(title="presets", title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for name in preset_names():
        table.add_row(name, _first_comment(preset_path(name)))
    return table


def _first_comment(preset: Path) -> str:
    first = preset.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
