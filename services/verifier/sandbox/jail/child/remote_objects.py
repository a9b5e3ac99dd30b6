"""Objects of the solution as its judge sees them: they stay in the other process, and only data comes from them."""

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from services.verifier.sandbox.jail.child.plain_data import Handle

# Methods that the built-in types have. A test that calls one on a result expects data, not the solution's own object,
# whose method of that name could say what the test wants to hear.
_METHODS_OF_DATA = frozenset(
    name
    for kind in (int, float, complex, str, bytes, list, tuple, set, dict)
    for name in dir(kind)
    if not name.startswith("_")
)
_PREDICATES_OF_DATA = frozenset(name for name in _METHODS_OF_DATA if name.startswith(("is", "startswith", "endswith")))
_BINARY = (
    ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "truediv"), ("floordiv", "floordiv"), ("mod", "mod"),
    ("pow", "pow"), ("matmul", "matmul"), ("and", "and_"), ("or", "or_"), ("xor", "xor"),
)  # fmt: skip


class Asker(Protocol):
    """What asks the solution about its objects."""

    def call(self, remote: "Remote", arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any: ...

    def attribute(self, handle: Handle, name: str) -> Any: ...

    def set_attribute(self, handle: Handle, name: str, value: Any) -> None: ...

    def operate(self, operation: str, *operands: Any) -> Any: ...

    def is_plain(self, value: Any) -> bool: ...

    def refuse(self, reason: str) -> NoReturn: ...

    def charge(self, reason: str) -> NoReturn: ...


@dataclass(frozen=True, slots=True)
class Remote:
    """Which object it is, and whether the test itself named it, as a class, or made it, by calling one."""

    asker: Asker
    handle: Handle
    is_made: bool = False

    def refuse(self, use: str = "uses") -> NoReturn:
        self.asker.refuse(f"the test {use} an object of type {self.handle.name}")

    def refuse_as_data(self) -> NoReturn:
        """Where the test computes with data, a result is the answer's fault: else any answer could be unjudged."""
        if self.is_made:
            self.refuse("compares or combines data with")
        self.asker.charge(f"an object of type {self.handle.name} where the test computes with data")


class RemoteObject:
    """An object of the solution.

    A test may read its attributes and items and call its methods: what comes back is data. It equals no data. What
    could agree with the test's expectation is refused (comparisons, arithmetic, `in`, truth, methods that data has),
    except between objects that the test made itself; a result that is compared or combined with data fails the test.
    """

    def __init__(self, remote: Remote) -> None:
        object.__setattr__(self, "_remote", remote)

    def __getattr__(self, name: str) -> Any:
        remote = remote_of(self)
        if name in (_PREDICATES_OF_DATA if remote.is_made else _METHODS_OF_DATA):
            remote.refuse(f"calls .{name} of")
        return remote.asker.attribute(remote.handle, name)

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return RemoteObject.__getattr__(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        remote_of(self).asker.set_attribute(remote_of(self).handle, name, value)

    def __eq__(self, other: object) -> bool:
        remote = remote_of(self)
        if isinstance(other, RemoteObject):
            is_same = remote_of(other).handle.number == remote.handle.number
            return is_same or _operate_if_made(self, "eq", other) is True
        is_asked = remote.is_made and other is not None and _operate(self, "has_own_eq")
        if is_asked or not remote.asker.is_plain(other):
            remote.refuse("compares data with")
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(remote_of(self).handle.number)

    def __repr__(self) -> str:
        if remote_of(self).is_made:
            return str(_operate(self, "repr"))
        return f"<an object of type {remote_of(self).handle.name}>"

    def __str__(self) -> str:
        return str(_operate(self, "str"))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return remote_of(self).asker.call(remote_of(self), arguments, keywords)

    def __len__(self) -> int:
        return int(_operate(self, "len"))

    def __iter__(self) -> Any:
        return iter(_operate(self, "list"))

    def __getitem__(self, key: Any) -> Any:
        return _operate(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _operate(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _operate(self, "delitem", key)

    def __int__(self) -> int:
        return int(_operate(self, "int"))

    def __float__(self) -> float:
        return float(_operate(self, "float"))

    def __enter__(self) -> Any:
        return _operate(self, "enter")

    def __exit__(self, *_: object) -> None:
        _operate(self, "exit")

    def __contains__(self, item: Any) -> bool:
        return _operate_if_made(self, "contains", item) is True

    def __bool__(self) -> bool:
        if not remote_of(self).is_made:  # `while node:` asks this of right answers, too
            remote_of(self).refuse()
        return _operate(self, "bool") is True

    def __neg__(self) -> Any:
        return _operate_if_made(self, "neg")

    def __abs__(self) -> Any:
        return _operate_if_made(self, "abs")

    def __reduce_ex__(self, _: object) -> Any:
        remote_of(self).refuse("copies")


class RemoteFunction(RemoteObject):
    """A function or method of the solution."""

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        remote = remote_of(self)
        if name not in ("__name__", "__doc__"):
            remote.asker.refuse(f"the test uses {name!r} of a function")
        return remote.asker.attribute(remote.handle, name)


class RemoteClass(RemoteObject):
    """A class of the solution: calling it makes an object that the test may use freely."""

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return remote_of(self).asker.attribute(remote_of(self).handle, name)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, RemoteObject) and _operate(value, "isinstance", self) is True


def remote_of(value: RemoteObject) -> Remote:
    """Which object it stands for."""
    remote: Remote = object.__getattribute__(value, "_remote")
    return remote


def remote_object(asker: Asker, handle: Handle, is_made: bool = False) -> RemoteObject:
    """What stands for the object of this handle."""
    kind = {"class": RemoteClass, "function": RemoteFunction}.get(handle.kind, RemoteObject)
    return kind(Remote(asker, handle, is_made))


def _operate(value: RemoteObject, operation: str, *operands: Any) -> Any:
    return remote_of(value).asker.operate(operation, value, *operands)


def _operate_if_made(value: RemoteObject, operation: str, *operands: Any) -> Any:
    others = [each for each in operands if isinstance(each, RemoteObject)]
    if len(others) < len(operands) or not (others or remote_of(value).is_made):
        remote_of(value).refuse_as_data()
    for each in (value, *others):
        if not remote_of(each).is_made:
            remote_of(each).refuse()
    return _operate(value, operation, *operands)


def _forward(operation: str) -> Any:
    return lambda self, other: _operate_if_made(self, operation, other)


def _refuse_reflected(self: RemoteObject, _: object) -> NoReturn:
    remote_of(self).refuse_as_data()


for _name, _operation in _BINARY:
    setattr(RemoteObject, f"__{_name}__", _forward(_operation))
    setattr(RemoteObject, f"__r{_name}__", _refuse_reflected)
for _name in ("lt", "le", "gt", "ge"):
    setattr(RemoteObject, f"__{_name}__", _forward(_name))
