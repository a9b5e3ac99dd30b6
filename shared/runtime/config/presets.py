"""The presets that come with ibtpo, and TOML files of the user's own."""

import tomllib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.files import read_text
from shared.runtime.config.errors import ConfigError, explain, suggest
from shared.runtime.config.renamed import refuse_old_section

SECTIONS = ("rollout", "verifier", "learner", "launcher")
ABOUT = "about"
_ROOT = Path(__file__).resolve().parents[3]
# from a checkout, and from an installed wheel
_FOLDERS = (_ROOT / "deploy" / "config", _ROOT / "services" / "presets")

Tables: TypeAlias = Mapping[str, dict[str, Any]]
"""The tables of a preset, by section."""
Preset: TypeAlias = str | Path | Tables
"""One by name, by path, or as its tables."""


class PresetKind(StrEnum):
    """What a preset is for."""

    METHOD = "method"
    """How trees are grown and learnt from, on any task."""
    TASK = "task"
    """Problems, budget and limits, for any method."""


class About(BaseModel):
    """What a preset says of itself: section `[about]`, which no service reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    sentence: str = Field("", description="What it does, in one sentence")
    reference: str = Field("", description="Where it is published, such as arXiv 2506.05183")
    kind: PresetKind = Field(PresetKind.METHOD, description="method, or task")


def preset_names() -> list[str]:
    return sorted(path.stem for folder in _FOLDERS if folder.is_dir() for path in folder.glob("*.toml"))


def preset_path(preset: str | Path) -> Path:
    """The file of a preset, given by name or by path."""
    if isinstance(preset, Path) or "/" in preset or preset.endswith(".toml"):
        return Path(preset)
    for folder in _FOLDERS:
        if (path := folder / f"{preset}.toml").is_file():
            return path
    close = get_close_matches(preset, preset_names(), n=3)
    meant = f"did you mean {' or '.join(close)}?" if close else "`ibtpo presets` lists them;"
    raise ConfigError(f"no preset {preset!r}; {meant} give one of these or the path of a .toml file")


def read_preset(preset: Preset, sections: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The tables of a preset by section, without `[about]`. ConfigError unless all are `sections`, or sections of
    another service."""
    if isinstance(preset, Mapping):
        return deepcopy(dict(preset))
    tables = _read_tables(preset_path(preset), sections)
    tables.pop(ABOUT, None)
    return tables


def read_about(preset: str | Path) -> About:
    """What a preset says of itself; nothing where it has no `[about]`."""
    return About.model_validate(_read_tables(preset_path(preset), SECTIONS).get(ABOUT, {}))


def merge_tables(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """All of `above`, and what it does not state as in `below`; a table of another kind is not filled."""
    merged = below | above
    for name in below.keys() & above.keys():
        lower, upper = below[name], above[name]
        if isinstance(lower, dict) and isinstance(upper, dict):
            is_other = upper.get("kind", lower.get("kind")) != lower.get("kind")
            merged[name] = upper if is_other else merge_tables(lower, upper)
    return merged


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read the preset {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}; save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _read_tables(path: Path, sections: Iterable[str]) -> dict[str, dict[str, Any]]:
    tables = _read_toml(path)
    known = {*SECTIONS, ABOUT, *sections}
    for name, table in tables.items():
        if name not in known:
            refuse_old_section(name)
            raise ConfigError(f"{path}: unknown section [{name}]{suggest(name, known)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is a section, write [{name}] and its keys below, not {name} = …")
    about = tables.get(ABOUT, {})
    try:
        About.model_validate(about)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(ABOUT, about, {ABOUT: About}, error)}") from error
    return tables
