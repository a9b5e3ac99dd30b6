"""Finds out which section a `key=value` argument belongs to, so that `sampler=ib lr=1e-4` can be said as they are."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel

from shared.errors import InvalidInput

Sections = Mapping[str, type[BaseModel]]


def sort_out(overrides: Sequence[str], sections: Sections) -> dict[str, list[str]]:
    """The overrides of each section, spelled in full (`section.table.key=value`), in the order given.

    A key may leave out its section and its tables where only one place has it. InvalidInput, with the closest
    names, where none or several have it.
    """
    sorted_out: dict[str, list[str]] = {name: [] for name in sections}
    paths = tuple(dict.fromkeys(_all_paths(sections)))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InvalidInput(f"{override!r} is no key=value argument; for instance seed=1 or learner.batch_size=32")
        path = _place(key.strip(), paths)
        sorted_out[path.split(".")[0]].append(f"{path}={value}")
    return sorted_out


def _place(key: str, paths: Sequence[str]) -> str:
    """The full path of `key`, which may go deeper than the models say (into one variant of several)."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        head, rest = ".".join(parts[:length]), "".join(f".{part}" for part in parts[length:])
        found = [path for path in paths if path == head or path.endswith(f".{head}")]
        shallowest = min((path.count(".") for path in found), default=0)
        found = [path for path in found if path.count(".") == shallowest]
        if len(found) == 1:
            return found[0] + rest
        if found:
            raise InvalidInput(f"{key!r} could be {' or '.join(path + rest for path in found)}: say which")
    names = sorted({path.rpartition(".")[2] for path in paths} | set(paths))
    close = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "`ibtpo config` shows every key"
    raise InvalidInput(f"no setting is called {key!r}: {hint}")


def _all_paths(sections: Sections) -> Iterator[str]:
    for name, model in sections.items():
        yield from _paths(name, model)


def _paths(prefix: str, model: type) -> Iterator[str]:
    for name, annotation in _fields(model).items():
        yield f"{prefix}.{name}"
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and _fields(inner):
                yield from _paths(f"{prefix}.{name}", inner)


def _fields(model: type) -> dict[str, object]:
    if issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    if dataclasses.is_dataclass(model):
        return {field.name: field.type for field in dataclasses.fields(model)}
    return {}
