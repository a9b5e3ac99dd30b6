"""LeetCode's lists and trees: nodes of the solution's classes from JSON lists, and back."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from services.verifier.sandbox.jail.child.usual_names import NODE_NAMES, usual_nodes

_MAX_NODES = 1_000_000
_NODE = re.compile(r"\b(ListNode|TreeNode)\b")
_SEVERAL = re.compile(r"\b[Ll]ist\[")
# Parameters without annotations that hold nodes, and the attributes that such a program uses.
_PARAMETERS = {
    "TreeNode": (frozenset({"root", "root1", "root2", "subRoot", "tree"}), frozenset({"left", "right"})),
    "ListNode": (frozenset({"head", "headA", "headB", "l1", "l2", "list1", "list2"}), frozenset({"next"})),
}


def call_with_lists(
    function: Callable[..., Any],
    arguments: list[Any] | dict[str, Any],
    names: Mapping[str, Any],
    mentioned: Collection[str],
) -> tuple[Any, Any]:
    """The result of a call whose arguments are JSON; nodes are lists again.

    With it, what the first argument is after the call, if the function is annotated to return None: it works in place.
    """
    try:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        returned = _text(signature.return_annotation)
    except (TypeError, ValueError):
        parameters, returned = [], ""
    named = arguments if isinstance(arguments, dict) else dict(enumerate(arguments))
    given: dict[Any, Any] = {}
    for key, value in named.items():
        fitting = (each for position, each in enumerate(parameters) if key in (position, each.name))
        given[key] = _to_argument(value, next(fitting, None), names, mentioned)
    result = _from_nodes(function(**given) if isinstance(arguments, dict) else function(*given.values()))
    if result is None and _NODE.search(returned) and not _SEVERAL.search(returned):
        result = []
    is_in_place = returned == "None"
    return result, _from_nodes(next(iter(given.values()), None)) if is_in_place else None


def _to_argument(
    value: Any, parameter: inspect.Parameter | None, names: Mapping[str, Any], mentioned: Collection[str]
) -> Any:
    class_name = parameter and _node_class(parameter, mentioned)
    if parameter is None or not class_name:
        return value
    kind = names.get(class_name) or usual_nodes()[class_name]
    return _to_nodes(value, kind, bool(_SEVERAL.search(_text(parameter.annotation))))


def _text(annotation: Any) -> str:
    return "" if annotation is inspect.Parameter.empty else str(annotation)


def _node_class(parameter: inspect.Parameter, mentioned: Collection[str]) -> str | None:
    if parameter.annotation is not inspect.Parameter.empty:
        found = _NODE.search(_text(parameter.annotation))
        return found[1] if found else None
    for class_name, (parameter_names, attributes) in _PARAMETERS.items():
        if parameter.name in parameter_names and attributes & set(mentioned):
            return class_name
    return None


def _to_nodes(value: Any, kind: Any, several: bool) -> Any:
    if not isinstance(value, list):
        return value
    if several:
        return [_to_nodes(item, kind, False) for item in value]
    return _to_tree(value, kind) if kind.__name__ == "TreeNode" else _to_list(value, kind)


def _to_list(values: Sequence[Any], kind: Any) -> Any:
    head = None
    for value in reversed(values):
        node = kind(value)
        node.next = head
        head = node
    return head


def _to_tree(values: Sequence[Any], kind: Any) -> Any:
    if not values or values[0] is None:
        return None
    root = kind(values[0])
    waiting = [root]
    position = 1
    for node in waiting:  # grows meanwhile
        for side in ("left", "right"):
            value = values[position] if position < len(values) else None
            position += 1
            child = None if value is None else kind(value)
            setattr(node, side, child)
            if child is not None:
                waiting.append(child)
    return root


def _from_nodes(value: Any) -> Any:
    name = type(value).__name__
    if isinstance(value, list) and any(type(item).__name__ in NODE_NAMES for item in value):
        return [[] if item is None else _from_nodes(item) for item in value]
    if name == "ListNode":
        return _from_list(value)
    return _from_tree(value) if name == "TreeNode" else value


def _from_list(node: Any) -> list[Any]:
    values: list[Any] = []
    while node is not None:
        _count(values)
        values.append(node.val)
        node = node.next
    return values


def _from_tree(root: Any) -> list[Any]:
    values: list[Any] = []
    waiting = [root]
    for node in waiting:  # grows meanwhile
        _count(values)
        values.append(None if node is None else node.val)
        if node is not None:
            waiting += [node.left, node.right]
    while values and values[-1] is None:
        values.pop()
    return values


def _count(values: Sequence[Any]) -> None:
    if len(values) > _MAX_NODES:
        raise ValueError(f"linked nodes without end: more than {_MAX_NODES}")
