"""Loads the configuration of services: defaults, the environment, a preset, then `key=value` overrides."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.files import read_text
from shared.runtime.config.errors import ConfigError, error_path, explain
from shared.runtime.config.keys import Models
from shared.runtime.config.overrides import parse_value, resolve_overrides, set_value, split_override
from shared.runtime.config.presets import Preset, merge_tables, read_preset
from shared.runtime.config.renamed import refuse_old_keys

Model = TypeVar("Model", bound=BaseModel)


def load_config(
    model: type[Model],
    section: str,
    preset: Preset | None,
    overrides: Sequence[str] = (),
    *,
    base: Preset | None = None,
) -> Model:
    """The configuration of one service: the model's defaults, then the environment, the table `section` of the preset
    `base` and of `preset`, and `key=value` overrides. ConfigError for anything that does not fit."""
    loaded = load_sections({section: model}, preset, overrides, base=base)[section]
    assert isinstance(loaded, model)
    return loaded


def load_sections(
    models: Models, preset: Preset | None, overrides: Sequence[str] = (), *, base: Preset | None = None
) -> dict[str, BaseModel]:
    """Several sections from the same presets and overrides."""
    below, above = ({} if one is None else read_preset(one, models) for one in (base, preset))
    tables = merge_tables(below, above)
    resolved = resolve_overrides(overrides, models)
    return {section: _load(section, models, dict(tables.get(section, {})), resolved[section]) for section in models}


def _load(section: str, models: Models, table: dict[str, Any], overrides: Sequence[str]) -> BaseModel:
    texts: dict[tuple[str, ...], str] = {}
    for override in overrides:
        name, text = split_override(override)
        path = tuple(name.split(".")[1:])
        set_value(table, path, parse_value(text))
        texts[path] = text
    refuse_old_keys(section, table)
    values = {**_environment(models[section]), **table}
    while True:
        try:
            return models[section].model_validate(values)
        except ValidationError as error:
            if not _put_texts_back(values, texts, error):
                raise ConfigError(explain(section, values, models, error)) from error
            texts = {}  # once


def _put_texts_back(values: dict[str, Any], texts: Mapping[tuple[str, ...], str], error: ValidationError) -> bool:
    """Puts an override's text back where a string was wanted and its value read as a number or a date."""
    changed = False
    for item in error.errors():
        path = error_path(item["loc"], values)
        if item["type"] == "string_type" and path in texts:
            set_value(values, path, texts[path])
            changed = True
    return changed


def _environment(model: type[BaseModel]) -> dict[str, str]:
    """Defaults from the environment, for the fields that have one."""
    found = {}
    if "redis_url" in model.model_fields and os.environ.get("REDIS_URL"):
        found["redis_url"] = os.environ["REDIS_URL"]
    if "token" in model.model_fields and (token := read_token()) is not None:
        found["token"] = token
    return found


def read_token() -> str | None:
    """The token of IBTPO_TOKEN, or what is in the file that IBTPO_TOKEN_FILE names: an empty file is no choice."""
    path = os.environ.get("IBTPO_TOKEN_FILE")
    if os.environ.get("IBTPO_TOKEN") or not path:
        return os.environ.get("IBTPO_TOKEN") or None
    try:
        return read_text(Path(path)).strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"IBTPO_TOKEN_FILE={path} is not UTF-8; save it as UTF-8 text") from error
    except OSError as error:
        raise ConfigError(
            f"cannot read IBTPO_TOKEN_FILE={path}: {error.strerror}; is it readable for this user?"
        ) from error
