"""Answers a judge's questions about a solution: looks up its names, calls its functions, uses its objects."""

import builtins
import functools
import io
import operator
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.linked_nodes import call_with_lists
from services.verifier.sandbox.jail.child.object_graph import find_parts, from_graph, read_parts, to_graph, write_parts
from services.verifier.sandbox.jail.child.plain_data import (
    BUILTIN,
    BUILTIN_TYPES,
    Array,
    Graph,
    Handle,
    Malformed,
    NamedValues,
    NotPlain,
    builtin_handle,
    from_named_tuple,
)
from services.verifier.sandbox.jail.child.usual_names import usual_nodes

# ("value", v, extras), ("raised", classes, builtin, message, arguments, extras), ("too_large", what) or ("missing",).
_Reply = tuple[Any, ...]

_MAX_PRINTED = 1 << 20
_MAX_MESSAGE = 500
_CONTAINERS = (list, dict, set, deque, bytearray)
_PLAIN_BASES = (int, float, str, bytes, list, tuple, set, frozenset, dict, Iterator)
# What a judge may do with an object, besides calling it and reading and setting its attributes.
_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("contains", "delitem", "getitem", "setitem")},
    **{name: getattr(operator, name) for name in ("eq", "ge", "gt", "le", "lt", "ne")},
    **{name: getattr(operator, name) for name in ("add", "floordiv", "matmul", "mod", "mul", "pow", "sub", "truediv")},
    **{name: getattr(operator, name) for name in ("abs", "and_", "neg", "or_", "xor")},
    **{kind.__name__: kind for kind in (bool, float, int, list, str)},
    **{function.__name__: function for function in (isinstance, len, repr)},
    "has_own_eq": lambda value: getattr(type(value), "__eq__", None) is not getattr(object, "__eq__", None),
    "enter": lambda value: value.__enter__(),
    "exit": lambda value: value.__exit__(None, None, None),
}


_FUNCTIONS = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    type(functools.cache(len)),
)


def serve_solution(names: Mapping[str, Any], channel: JudgeChannel, mentioned: Collection[str] = ()) -> None:
    """Answers questions about the solution's globals until the judge is gone.

    `mentioned`: the names in the solution's code.
    """
    _SolutionServer(names, channel, mentioned).serve()


class _Missing(Exception):
    """The solution has no such name."""


class _SolutionServer:
    """One solution's names and, by number, those of its objects that the judge knows."""

    def __init__(self, names: Mapping[str, Any], channel: JudgeChannel, mentioned: Collection[str]) -> None:
        self._names = names
        self._channel = channel
        self._mentioned = mentioned
        self._objects: list[Any] = []
        self._number_of_object: dict[int, int] = {}
        self._shared: frozenset[str] = frozenset()  # classes of the tests, whose objects cross by their fields
        self._classes: dict[str, Any] = {}
        channel.replace, channel.resolve = self._replace, self._resolve

    def serve(self) -> None:
        while True:
            try:
                verb, *rest = self._channel.receive()
            except EOFError:
                return
            self._send(self._answer(verb, rest))

    def _answer(self, verb: str, rest: list[Any]) -> _Reply:
        try:
            if verb == "call":
                return _call(self, *rest)
            if verb == "attribute":
                return self._lend(getattr(*rest))
            return ("value", getattr(self, f"_do_{verb}")(*rest), {})
        except _Missing:
            return ("missing",)
        except BaseException as error:  # noqa: BLE001 - whatever it raises, also SystemExit, is the answer
            return self.describe_error(error, {})

    # --- what the judge may ask

    def _do_share(self, class_names: list[str]) -> None:
        self._shared = frozenset(class_names)

    def _do_get(self, name: str, owner: str) -> Any:
        """A global; without one, the method of a new object of `owner`, or of `Solution`."""
        kind = self._names.get(owner or "Solution")
        if owner and hasattr(kind, name):
            return _Method(kind, name)
        if name in self._names:
            return self._names[name]
        if isinstance(kind, type) and hasattr(kind, name):
            return _Method(kind, name)
        raise _Missing

    def _do_read(self, number: int) -> Any:
        return self._objects[number]

    def _do_write(self, number: int, content: Any) -> None:
        write_parts([self._objects[number]], [content])

    def _do_set(self, value: Any, name: str, new: Any) -> None:
        setattr(value, name, new)

    def _do_operate(self, operation: str, *operands: Any) -> Any:
        return _OPERATIONS[operation](*operands)

    def _do_solve(self, name: str, owner: str, arguments: list[Any] | dict[str, Any]) -> Any:
        function = self._do_get(name, owner)
        if isinstance(function, _Method):
            function = function.bind()
        return call_with_lists(function, arguments, self._names, self._mentioned)

    def _lend(self, value: Any) -> _Reply:
        """An attribute. A container's number comes with it: the test may change it, and see what becomes of it."""
        return ("value", value, {"loan": self.hand_out(value).number} if type(value) in _CONTAINERS else {})

    # --- values on their way

    def _replace(self, value: Any) -> Any:
        value = from_named_tuple(value)
        kind = type(value)
        if kind in (Handle, Array, NamedValues) or (isinstance(value, _PLAIN_BASES) and not self.is_node(value)):
            return value
        if (builtin := builtin_handle(value)) is not None:
            return builtin
        return to_graph(value, self.is_node) if self.is_node(value) else self.hand_out(value)

    def hand_out(self, value: Any) -> Handle:
        number = self._number_of_object.get(id(value))
        if number is None:
            number = self._number_of_object[id(value)] = len(self._objects)
            self._objects.append(value)
        return Handle(number, _kind_of(value), str(value.__name__ if isinstance(value, type) else type(value).__name__))

    def _resolve(self, value: Handle | Graph) -> Any:
        if isinstance(value, Graph):
            return from_graph(value, self._make_node)
        if value.kind == BUILTIN:
            return BUILTIN_TYPES[value.name]
        if not 0 <= value.number < len(self._objects):
            raise Malformed(f"no object has the number {value.number}")
        return self._objects[value.number]

    def is_node(self, value: Any) -> bool:
        return type(value).__name__ in self._shared and not isinstance(value, type)

    def _make_node(self, class_name: str) -> Any:
        kind = self._names.get(class_name, self._classes.get(class_name))
        if not isinstance(kind, type):
            kind = self._classes[class_name] = usual_nodes().get(class_name) or type(class_name, (), {})
        return object.__new__(kind)

    def describe_error(self, error: BaseException, extras: dict[str, Any]) -> _Reply:
        mro = type(error).__mro__
        known = next(base for base in mro if getattr(builtins, base.__name__, None) is base)
        own = [self.hand_out(kind) for kind in mro[: mro.index(known)]]
        arguments = list(error.args) if all(type(item) in (int, float, str, bool) for item in error.args) else None
        try:
            message = str(error)
        except BaseException:  # noqa: BLE001 - its own code
            message, arguments = "", None
        if any(isinstance(item, str) and len(item) > _MAX_MESSAGE for item in arguments or ()):
            arguments = None
        return ("raised", own, known.__name__, message[:_MAX_MESSAGE], arguments, extras)

    def _send(self, reply: _Reply) -> None:
        try:
            self._channel.send(reply)
        except NotPlain as error:
            self._channel.send(("too_large", str(error)))
        except BaseException as error:  # noqa: BLE001 - iterating a lazy result runs more of the solution
            self._channel.send(self.describe_error(error, {}))


def _kind_of(value: Any) -> str:
    if isinstance(value, type):
        return "error" if issubclass(value, BaseException) else "class"
    # an object that can be called, as a connection of sqlite3, has attributes that tests use
    return "function" if isinstance(value, _FUNCTIONS) else "object"


def _call(
    server: _SolutionServer, function: Any, arguments: list[Any], keywords: dict[str, Any], options: dict[str, Any]
) -> _Reply:
    """A call. `options`: what it reads (`stdin`), and whether what it `printed` and its arguments come back."""
    parts = find_parts([arguments, keywords], server.is_node) if options.get("changes") else []
    extras: dict[str, Any] = {}
    try:
        with _streams(options, extras):
            result = function(*arguments, **keywords)
        if isinstance(function, type) and type(result) is function:
            result = server.hand_out(result)
        reply: _Reply = ("value", result, extras)
    except BaseException as error:  # noqa: BLE001 - whatever it raises, also SystemExit, is the call's result
        reply = server.describe_error(error, extras)
    if parts:
        extras["changes"] = read_parts(parts)
    return reply


class _Method:
    """A method that is called on a new object each time."""

    def __init__(self, kind: Any, name: str) -> None:
        self._kind = kind
        self._name = name

    def bind(self) -> Any:
        return getattr(self._kind(), self._name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.bind()(*arguments, **keywords)


@contextmanager
def _streams(options: Mapping[str, Any], extras: dict[str, Any]) -> Iterator[None]:
    """Gives a call its input, and keeps what it prints, where the judge asks for it."""
    stdin, stdout = sys.stdin, sys.stdout
    printed = io.StringIO() if options.get("printed") else None
    if "stdin" in options:
        sys.stdin = io.StringIO(options["stdin"])
    if printed is not None:
        sys.stdout = printed
    try:
        yield
    finally:
        sys.stdin, sys.stdout = stdin, stdout
        if printed is not None:
            extras["printed"] = printed.getvalue()[:_MAX_PRINTED]
