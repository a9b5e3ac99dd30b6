"""Configuration: one frozen model per service, from a TOML preset and `key=value` overrides."""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import InvalidInput
from shared.runtime.http_errors import shorten

SECTIONS = ("rollout", "verifier", "learner", "launcher")
_ROOT = Path(__file__).resolve().parents[2]
# from a checkout, and from an installed wheel
_PRESET_FOLDERS = (_ROOT / "deploy" / "config", _ROOT / "services" / "presets")

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(InvalidInput):
    """The configuration cannot be used; the message names the key, its value and the remedy."""

    title = "invalid configuration"


def load_config(model: type[Model], section: str, preset: str | Path | None, overrides: Sequence[str] = ()) -> Model:
    """The configuration of one service: the model's defaults, then the environment, the preset's table `section`,
    and `section.key=value` or `key=value` overrides. ConfigError for anything that does not fit."""
    loaded = load_sections({section: model}, preset, overrides)[section]
    assert isinstance(loaded, model)
    return loaded


def load_sections(
    models: Mapping[str, type[BaseModel]], preset: str | Path | None, overrides: Sequence[str] = ()
) -> dict[str, BaseModel]:
    """Several sections from the same preset and overrides; a bare `key=value` goes to the one section that has it."""
    tables = _read_preset(preset, models) if preset is not None else {}
    given = {section: dict(tables.get(section, {})) for section in models}
    texts: dict[tuple[str, ...], str] = {}
    for override in overrides:
        path, text = _parse_override(override, models)
        if path is not None:
            _set(given[path[0]], path[1:], _value_of(text), override)
            texts[path] = text
    return {section: _validate(section, models, given[section], texts) for section in models}


def preset_names() -> list[str]:
    """The names of the presets that come with ibtpo."""
    return sorted(path.stem for folder in _PRESET_FOLDERS if folder.is_dir() for path in folder.glob("*.toml"))


def preset_path(preset: str | Path) -> Path:
    """The file of a preset, given by name or by path."""
    if isinstance(preset, Path) or "/" in preset or preset.endswith(".toml"):
        return Path(preset)
    for folder in _PRESET_FOLDERS:
        if (path := folder / f"{preset}.toml").is_file():
            return path
    raise ConfigError(
        f"no preset {preset!r}{_suggest(preset, preset_names())}; give one of these or the path of a .toml file"
    )


def _read_preset(preset: str | Path, models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    path = preset_path(preset)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the preset {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    known = sorted({*SECTIONS, *models})
    for name, table in tables.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown section [{name}]{_suggest(name, known)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is a section, write [{name}] and its keys below, not {name} = …")
    return tables


def _parse_override(override: str, models: Mapping[str, type[BaseModel]]) -> tuple[tuple[str, ...] | None, str]:
    """Where an override goes (None: to a section that is not loaded here), and its value's text."""
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"an override reads key=value or section.key=value, not {override!r}")
    if path[0] in models and len(path) > 1:
        return path, text.strip()
    owners = [section for section, model in models.items() if path[0] in model.model_fields]
    if len(owners) == 1:
        return (owners[0], *path), text.strip()
    if len(owners) > 1:
        choices = " or ".join(f"{owner}.{key}" for owner in owners)
        raise ConfigError(f"{key} is a key of {len(owners)} sections; write {choices}")
    if path[0] in SECTIONS and len(path) > 1:
        return None, text
    deeper = [key for model in models.values() for key in _dotted_keys(model) if f".{key}".endswith(f".{path[-1]}")]
    if deeper:
        raise ConfigError(f"unknown key {key!r} in the override {override!r}; did you mean {' or '.join(deeper)}?")
    known = [name for model in models.values() for name in model.model_fields]
    raise ConfigError(f"unknown key {key!r} in the override {override!r}{_suggest(path[0], [*known, *models])}")


def _value_of(text: str) -> Any:
    """The override's text as a TOML value, or as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set(table: dict[str, Any], path: tuple[str, ...], value: Any, override: str) -> None:
    for part in path[:-1]:
        inner = table.get(part, {})
        if not isinstance(inner, dict):
            # a nested model given by its bare name before, such as sampler = "ib"
            inner = {"kind": inner} if isinstance(inner, str) else None
        if inner is None:
            raise ConfigError(f"{override!r}: {part} holds a value, not keys of its own")
        table[part] = dict(inner)
        table = table[part]
    table[path[-1]] = value


def _environment(model: type[BaseModel]) -> dict[str, str]:
    """Defaults from the environment, for the fields that have one."""
    found = {}
    if "redis_url" in model.model_fields and os.environ.get("REDIS_URL"):
        found["redis_url"] = os.environ["REDIS_URL"]
    if "token" in model.model_fields and (token := _token()):
        found["token"] = token
    return found


def _token() -> str:
    """The token of IBTPO_TOKEN, or the one in the file that IBTPO_TOKEN_FILE names."""
    path = os.environ.get("IBTPO_TOKEN_FILE")
    if os.environ.get("IBTPO_TOKEN") or not path:
        return os.environ.get("IBTPO_TOKEN", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"cannot read IBTPO_TOKEN_FILE={path}: {error.strerror}; is it readable for this user?"
        ) from error


def _validate(
    section: str, models: Mapping[str, type[BaseModel]], given: dict[str, Any], texts: Mapping[tuple[str, ...], str]
) -> BaseModel:
    model = models[section]
    values = {**_environment(model), **given}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        if _give_texts(section, values, texts, error):
            return _validate(section, models, values, {})
        raise ConfigError(_explain(section, models, error)) from error


def _give_texts(
    section: str, values: dict[str, Any], texts: Mapping[tuple[str, ...], str], error: ValidationError
) -> bool:
    """Puts an override's text back where a string was wanted and its value read as a number or a date."""
    changed = False
    for item in error.errors():
        path = tuple(str(part) for part in item["loc"])
        if item["type"] == "string_type" and (section, *path) in texts:
            _set(values, path, texts[section, *path], "")
            changed = True
    return changed


def _explain(section: str, models: Mapping[str, type[BaseModel]], error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join([section, *(str(part) for part in item["loc"])])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines.append(_explain_unknown(section, models, tuple(str(part) for part in item["loc"])))
        elif item["type"] == "missing":
            lines.append(f"{key} is missing; give it in [{section}] of the preset or as {key}=…")
        else:
            lines.append(f"{key} = {_shown(item['loc'], item['input'])}: {item['msg'][0].lower()}{item['msg'][1:]}")
    return "; ".join(lines)


def _shown(path: tuple[int | str, ...], value: object) -> str:
    """A value for a message; what may hold a secret is not shown."""
    return "***" if path[:1] in (("token",), ("redis_url",)) else shorten(repr(value))


def _explain_unknown(section: str, models: Mapping[str, type[BaseModel]], path: tuple[str, ...]) -> str:
    known = list(_fields_at(models[section], path[:-1]))
    elsewhere = [name for name, model in models.items() if name != section and path[0] in model.model_fields]
    deeper = [key for key in _dotted_keys(models[section]) if key.endswith(f".{path[-1]}")]
    if elsewhere and len(path) == 1:
        hint = f"; it is a key of [{elsewhere[0]}]"
    else:
        hint = f"; did you mean {' or '.join(deeper)}?" if deeper else _suggest(path[-1], known)
    return f"unknown key {'.'.join([section, *path])}{hint}"


def _fields_at(model: type[BaseModel], path: tuple[str, ...]) -> Sequence[str]:
    """The keys known at a place inside a model; none where it is not a model."""
    for part in path:
        field = model.model_fields.get(part)
        inner = None if field is None else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ()
        model = inner
    return tuple(model.model_fields)


def _dotted_keys(model: type[BaseModel]) -> list[str]:
    """All keys of a model, those of models inside it with a dot."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{key}" for key in _dotted_keys(field.annotation)]
    return keys


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(sorted(set(known)))}" if known else ""
