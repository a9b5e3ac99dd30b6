"""Linked objects as plain data: what crosses of them, and the parts of arguments that a call may have changed."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.verifier.sandbox.jail.child.plain_data import Graph, Malformed, Ref

IsNode = Callable[[Any], bool]

_MAX_DEPTH = 50


def to_graph(root: Any, is_node: IsNode) -> Graph:
    """The fields of an object and of all that it leads to."""
    objects = find_linked(root, is_node)
    index = {id(part): number for number, part in enumerate(objects)}
    return Graph([(type(part).__name__, with_refs(fields_of(part), index)) for part in objects])


def from_graph(graph: Graph, make: Callable[[str], Any]) -> Any:
    """The object; `make` gives an empty one of a class. Raises Malformed."""
    try:
        objects = [make(name) for name, _ in graph.objects]
        for part, (_, fields) in zip(objects, graph.objects, strict=True):
            set_fields(part, without_refs(fields, objects))
        return objects[0]
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise Malformed(f"linked objects: {error}") from None


def find_linked(root: Any, is_node: IsNode) -> list[Any]:
    """The object and all nodes that its fields lead to, each once."""
    objects, seen = [root], {id(root)}
    for part in objects:  # grows meanwhile
        for node in _find_nodes(list(fields_of(part).values()), is_node, 0):
            if id(node) not in seen:
                seen.add(id(node))
                objects.append(node)
    return objects


def find_parts(value: Any, is_node: IsNode, depth: int = 0) -> list[Any]:
    """The lists, sets, dictionaries … and nodes in a value that can be changed; on both sides in the same order."""
    if is_node(value):
        return find_linked(value, is_node)
    parts = [value] if type(value) in _CONTENT else []
    if depth < _MAX_DEPTH:
        children = value.values() if type(value) is dict else value if type(value) in (list, tuple, deque) else ()
        for child in children:
            parts += find_parts(child, is_node, depth + 1)
    return parts


def read_parts(parts: Sequence[Any]) -> list[Any]:
    """What each part holds now; where it holds another part, a Ref."""
    index = {id(part): number for number, part in enumerate(parts)}
    return [with_refs(content_of(part), index) for part in parts]


def write_parts(parts: Sequence[Any], contents: Any) -> None:
    """Makes each part hold what its copy holds. Raises Malformed."""
    if type(contents) is not list or len(contents) != len(parts):
        raise Malformed("the changed arguments are not those that were sent")
    try:
        for part, content in zip(parts, contents, strict=True):
            _write(part, without_refs(content, parts))
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise Malformed(f"changed arguments: {error}") from None


def fields_of(part: Any) -> dict[str, Any]:
    """An object's own fields."""
    fields = dict(getattr(part, "__dict__", {}))
    for kind in type(part).__mro__:
        declared = kind.__dict__.get("__slots__", ())
        for name in (declared,) if isinstance(declared, str) else declared:
            if hasattr(part, name):
                fields[name] = getattr(part, name)
    return fields


def set_fields(part: Any, fields: Mapping[str, Any]) -> None:
    """Sets fields that do not hide what the class defines."""
    declared = {name for kind in type(part).__mro__ for name in kind.__dict__.get("__slots__", ())}
    for name, value in fields.items():
        if not name.isidentifier() or (name not in declared and callable(getattr(type(part), name, None))):
            raise ValueError(f"{name!r} is no field of {type(part).__name__}")
        object.__setattr__(part, name, value)


def with_refs(content: Any, index: Mapping[int, int]) -> Any:
    """`content` with a Ref in place of each object of `index`, in lists and dictionaries as well."""
    return _map_inner(content, lambda value: Ref(index[id(value)]) if id(value) in index else value)


def without_refs(content: Any, objects: Sequence[Any]) -> Any:
    return _map_inner(content, lambda value: objects[value.index] if type(value) is Ref else value)


def _map_inner(content: Any, change: Callable[[Any], Any], depth: int = 0) -> Any:
    """A copy of a container with changed values; what `change` leaves as it is may be a container too."""

    def of(value: Any) -> Any:
        changed = change(value)
        is_open = changed is value and depth < _MAX_DEPTH and type(value) in (list, tuple, dict)
        return _map_inner(value, change, depth + 1) if is_open else changed

    if type(content) is dict:
        return {key: of(value) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(map(of, content))
    return content


def _find_nodes(values: Sequence[Any], is_node: IsNode, depth: int) -> list[Any]:
    found = []
    for value in values:
        if is_node(value):
            found.append(value)
        elif type(value) in (list, tuple, dict) and depth < _MAX_DEPTH:
            found += _find_nodes(list(value.values()) if type(value) is dict else value, is_node, depth + 1)
    return found


# What the content of each is sent as; of a node, its fields.
_CONTENT: dict[type, Callable[[Any], Any]] = {list: list, dict: dict, set: list, deque: list, bytearray: bytes}


def content_of(part: Any) -> Any:
    """What a part holds, as it is sent."""
    kind = _CONTENT.get(type(part))
    return fields_of(part) if kind is None else kind(part)


def _write(part: Any, content: Any) -> None:
    kind: Any = type(part)
    if type(content) is not _CONTENT.get(kind, dict):
        raise ValueError(f"a {kind.__name__} of {type(content).__name__}")
    if kind in (list, bytearray):
        part[:] = content
    elif kind in (dict, set, deque):
        part.clear()
        part.extend(content) if kind is deque else part.update(content)
    else:
        set_fields(part, content)
