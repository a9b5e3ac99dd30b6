"""The presets that come with ibtpo, and TOML files of the user's own."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared.files import read_text
from shared.runtime.config.errors import ConfigError, suggest
from shared.runtime.config.renamed import refuse_old_section

SECTIONS = ("rollout", "verifier", "learner", "launcher")
_ROOT = Path(__file__).resolve().parents[3]
# from a checkout, and from an installed wheel
_FOLDERS = (_ROOT / "deploy" / "config", _ROOT / "services" / "presets")


def preset_names() -> list[str]:
    return sorted(path.stem for folder in _FOLDERS if folder.is_dir() for path in folder.glob("*.toml"))


def preset_path(preset: str | Path) -> Path:
    """The file of a preset, given by name or by path."""
    if isinstance(preset, Path) or "/" in preset or preset.endswith(".toml"):
        return Path(preset)
    for folder in _FOLDERS:
        if (path := folder / f"{preset}.toml").is_file():
            return path
    raise ConfigError(
        f"no preset {preset!r}{suggest(preset, preset_names())}; give one of these or the path of a .toml file"
    )


def read_preset(preset: str | Path, sections: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The tables of a preset by section. ConfigError unless all are `sections`, or sections of another service."""
    path = preset_path(preset)
    try:
        tables = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read the preset {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}; save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    known = {*SECTIONS, *sections}
    for name, table in tables.items():
        if name not in known:
            refuse_old_section(name)
            raise ConfigError(f"{path}: unknown section [{name}]{suggest(name, known)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is a section, write [{name}] and its keys below, not {name} = …")
    return tables


def merge_tables(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """All of `above`, and what it does not state as in `below`; a table of another kind is not filled."""
    merged = below | above
    for name in below.keys() & above.keys():
        lower, upper = below[name], above[name]
        if isinstance(lower, dict) and isinstance(upper, dict):
            is_other = upper.get("kind", lower.get("kind")) != lower.get("kind")
            merged[name] = upper if is_other else merge_tables(lower, upper)
    return merged
