"""Makes `key=value` settings, as the command line takes them, of keyword arguments."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from os import PathLike, fspath
from typing import Any

from shared.errors import InvalidInput
from shared.runtime.config.keys import Models, all_paths, match_paths


def to_settings(keywords: Mapping[str, Any], models: Models, function: Callable[..., Any]) -> tuple[str, ...]:
    """The settings; a value of None is not given. InvalidInput for a keyword that is neither a key nor a parameter of
    the function, but close to one of these; one close to a key is refused where the settings are read."""
    paths = all_paths(models)
    parameters = [name for name, one in signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD]
    for keyword in keywords:
        close = difflib.get_close_matches(keyword, parameters, n=3, cutoff=0.7)
        if close and not match_paths(keyword, paths):
            raise InvalidInput(f"{function.__name__}() takes no {keyword!r}; did you mean {' or '.join(close)}?")
    return tuple(f"{key}={to_toml(value, key)}" for key, value in keywords.items() if value is not None)


def to_toml(value: Any, key: str) -> str:
    """A value as TOML on one line; InvalidInput for one that TOML cannot hold."""
    value = value.item() if hasattr(value, "item") and not isinstance(value, Mapping) else value  # of numpy, of torch
    match value:
        case bool():
            return str(value).lower()
        case int():
            return repr(int(value))
        case float():
            return "nan" if math.isnan(value) else repr(float(value))
        case str() | PathLike():
            return json.dumps(fspath(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            inner = (f"{json.dumps(str(name))} = {to_toml(one, f'{key}.{name}')}" for name, one in value.items())
            return "{" + ", ".join(inner) + "}"
        case Sequence() | set() | frozenset():
            return "[" + ", ".join(to_toml(one, key) for one in value) + "]"
    raise InvalidInput(f"{key} = {value!r}: a setting is a number, a text, a path, true or false, a list or a table")
