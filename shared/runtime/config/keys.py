"""The keys of a configuration: what each means, and which one a short name stands for."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shared.kinds import Kinds, is_path

Models = Mapping[str, type[BaseModel]]
"""The model of every section."""

SHARED: dict[str, Any] = {"shared": True}
"""`Field(json_schema_extra=SHARED)` marks the table that a bare name means where others have such a key, too: `beta`
the method's, from which others take it unless they state it; `lr` the optimizer's, whoever else has one."""

ANY_NAME = "NAME"
"""Stands in a path for a name of the user's own, such as that of a custom kind."""
ANY_ITEM = "*"
"""Stands in a path for each entry of a list."""
_NO_PARTS = frozenset({"data", "held_out", "tracker", "redis_url"})
"""Keys whose values may look like import paths, as `hf:NAME` does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key. `path` begins with the section; `kind` says which of several tables has it (`ib` of the samplers)."""

    path: str
    default: Any
    description: str
    kind: str
    tables: tuple[type[Any], ...]
    """What the key may hold where it holds a table: one model, or several to choose from by their `kind`."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def is_required(self) -> bool:
        return self.default is PydanticUndefined


def walk_keys(section: str, model: type[Any], kind: str = "", own: Sequence[str] = ()) -> Iterator[Key]:
    """Every key of a section's model and of the tables in it, a table before its keys. `own` are import paths of parts
    of the user's own, whose settings stand where such parts may."""
    for name, field in _fields(model):
        kinds = next((one for one in field.metadata if isinstance(one, Kinds)), None)
        description = field.description or next((one for one in field.metadata if isinstance(one, str)), "")
        default = field.get_default(call_default_factory=True, validated_data={})
        if kinds is not None:
            yield from _walk_kinds(f"{section}.{name}", kinds, default, description, kind, own)
            continue
        tables = tuple(one for one in (field.annotation, *get_args(field.annotation)) if _is_table(one))
        key = Key(f"{section}.{name}", default, description, kind, tables)
        yield key
        inside = f"{key.path}.{ANY_NAME}" if get_origin(field.annotation) is dict else key.path
        for table in tables:
            yield from walk_keys(inside, table, kind, own)
        for each in (one for item in get_args(field.annotation) for one in get_args(item) if isinstance(one, Kinds)):
            yield from _walk_each(f"{key.path}.{ANY_ITEM}", each, own)


def _walk_kinds(
    path: str, kinds: Kinds[Any], default: Any, description: str, kind: str, own: Sequence[str]
) -> Iterator[Key]:
    """The key of a part that is chosen by its kind, that of the kind itself, and those of every one."""
    yield Key(path, default, description, kind, tuple(kinds.classes.values()))
    names = f"Which {kinds.noun}: {', '.join(kinds.names)}, or package.module:Class"
    yield Key(f"{path}.kind", default, names, kind, ())
    yield from _walk_each(path, kinds, own)


def _walk_each(path: str, kinds: Kinds[Any], own: Sequence[str]) -> Iterator[Key]:
    """The settings of every built-in part, and of those of the user's own."""
    for name, part in (*kinds.classes.items(), *kinds.classes_of(own).items()):
        yield from walk_keys(path, part, name, own)


def all_paths(models: Models, own: Sequence[str] = ()) -> tuple[str, ...]:
    """The path of every key, each once."""
    keys = (key for section, model in models.items() for key in walk_keys(section, model, own=own))
    return tuple(dict.fromkeys(key.path for key in keys if not {ANY_NAME, ANY_ITEM} & {*key.path.split(".")}))


def named_parts(value: Any) -> tuple[str, ...]:
    """The import paths that stand as a kind in tables, or for a whole part: `{ kind = "my_pkg.mine:Mine" }`."""
    if isinstance(value, str):
        return (value,) if is_path(value) else ()
    if isinstance(value, Mapping):
        return tuple(path for name, one in value.items() if name not in _NO_PARTS for path in named_parts(one))
    if isinstance(value, list | tuple):
        return tuple(path for one in value for path in named_parts(one))
    return ()


def shared_tables(models: Models) -> tuple[str, ...]:
    """The paths of the tables from which other tables take what they do not state."""
    return tuple(
        f"{section}.{name}"
        for section, model in models.items()
        for name, field in model.model_fields.items()
        if field.json_schema_extra == SHARED
    )


def match_paths(name: str, paths: Sequence[str]) -> list[str]:
    """The paths that `name` may stand for: it leaves out the section, and tables, where that leaves no doubt.

    Of several, those with the fewest tables count. What goes deeper than the paths is kept as it is.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:length]), "".join(f".{part}" for part in parts[length:])
        found = [path for path in paths if path == head or path.endswith(f".{head}")]
        if found:
            depth = min(path.count(".") for path in found)
            return [path + rest for path in found if path.count(".") == depth]
    return []


def _fields(model: type[Any]) -> Iterator[tuple[str, FieldInfo]]:
    if issubclass(model, BaseModel):
        yield from model.model_fields.items()
        return
    types = get_type_hints(model, include_extras=True)
    for field in dataclasses.fields(model):
        if field.init:
            yield field.name, FieldInfo.from_annotated_attribute(types[field.name], field)


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))
