"""Configuration: one frozen model per service, from a TOML preset and `key=value` overrides."""

from shared.runtime.config.errors import ConfigError
from shared.runtime.config.keys import SHARED, Key, walk_keys
from shared.runtime.config.loading import load_config, load_sections, read_token
from shared.runtime.config.overrides import find_keys, resolve_overrides
from shared.runtime.config.presets import (
    ABOUT,
    About,
    Preset,
    PresetKind,
    Tables,
    merge_tables,
    preset_names,
    preset_path,
    read_about,
    read_preset,
)
from shared.runtime.config.token import Token
from shared.runtime.config.url import OptionalUrl, ServiceUrl, with_port, without_secrets

__all__ = [
    "ABOUT",
    "SHARED",
    "About",
    "ConfigError",
    "Key",
    "OptionalUrl",
    "Preset",
    "PresetKind",
    "ServiceUrl",
    "Tables",
    "Token",
    "find_keys",
    "load_config",
    "load_sections",
    "merge_tables",
    "preset_names",
    "preset_path",
    "read_about",
    "read_preset",
    "read_token",
    "resolve_overrides",
    "walk_keys",
    "with_port",
    "without_secrets",
]
