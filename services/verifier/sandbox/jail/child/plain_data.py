"""The encoding of values that cross between a solution and its judge: exact built-in types, nothing that could run.

What is no plain value crosses as a Handle (its number on its own side) or as a Graph (the fields of linked objects).
"""

import struct
import sys
from collections import deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from typing import Any

MAX_BYTES = 32 << 20
_MAX_DEPTH = 200
_MAX_ITERATED = 1_000_000

_SIZE = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")


class NotPlain(Exception):
    """The value cannot be encoded; the message says what it is."""


class Malformed(Exception):
    """The bytes are no encoded value."""


@dataclass(frozen=True, slots=True)
class Handle:
    """An object that stays in the solution's process: its number there, what it is, and the name of its class."""

    number: int
    kind: str
    name: str

    def __post_init__(self) -> None:
        if (type(self.number), type(self.kind), type(self.name)) != (int, str, str):
            raise TypeError(f"{self.number!r}, {self.kind!r}, {self.name!r}: not a number and two texts")


BUILTIN = "builtin"
"""The kind of a Handle that names a built-in type."""
BUILTIN_TYPES = {
    kind.__name__: kind
    for kind in (int, float, complex, bool, str, bytes, bytearray, list, tuple, set, frozenset, dict, type(None))
}


def builtin_handle(value: Any) -> Handle | None:
    """What is sent for a built-in type; None for any other value."""
    name = value.__name__ if type(value) is type else ""
    return Handle(0, BUILTIN, name) if BUILTIN_TYPES.get(name) is value else None


@dataclass(frozen=True, slots=True)
class Ref:
    """One of several objects that are sent together, by its index."""

    index: int


@dataclass(frozen=True, slots=True)
class Graph:
    """Objects that refer to each other: the class and the fields of each; the first one is the value."""

    objects: list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Array:
    """An array of numpy: its type, its shape and its values in order."""

    dtype: str
    shape: tuple[int, ...]
    values: list[Any]


@dataclass(frozen=True, slots=True)
class NamedValues:
    """A named tuple: its class's name, and the names and values of its fields."""

    name: str
    fields: tuple[str, ...]
    values: tuple[Any, ...]


def from_named_tuple(value: Any) -> Any:
    """A named tuple as it is sent; any other value as it is."""
    fields = getattr(type(value), "_fields", None)
    if not isinstance(value, tuple) or type(fields) is not tuple or len(fields) != len(value):
        return value
    return NamedValues(type(value).__name__, fields, tuple(value))


def to_named_tuple(value: NamedValues) -> Any:
    """The named tuple. Raises ValueError or TypeError for names that no field can have."""
    return _named_tuple(value.name, value.fields)(*value.values)


@lru_cache(maxsize=64)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def from_numpy(value: Any) -> Any:
    """An array or a number of numpy as it is sent; any other value as it is."""
    if type(value).__module__.partition(".")[0] != "numpy" or not hasattr(value, "tolist"):
        return value
    kind = str(getattr(value, "dtype", ""))
    if not getattr(value, "shape", ()) or kind == "object":
        return value.tolist()
    return Array(kind, tuple(value.shape), value.ravel().tolist())


def to_numpy(value: Array) -> Any:
    """The array; where numpy is not loaded, its values. Raises Malformed."""
    numpy = sys.modules.get("numpy")
    try:
        return value.values if numpy is None else numpy.array(value.values, dtype=value.dtype).reshape(value.shape)
    except Exception as error:  # noqa: BLE001 - whatever numpy says of a forged array
        raise Malformed(f"an array: {error}") from None


def _keep(value: Any) -> Any:
    return value


def encode(value: object, replace: Callable[[Any], Any] = _keep) -> bytes:
    """The value's bytes. A subclass is encoded as its built-in base; an iterator is consumed. Raises NotPlain.

    `replace` gives what is sent in place of a value of no built-in type: a plain value, a Handle, a Graph, or itself.
    """
    out = bytearray()
    _append(out, value, 0, replace)
    _check_size(out)
    return bytes(out)


def decode(data: bytes, resolve: Callable[[Any], Any] = _keep) -> Any:
    """The value, of exact built-in types and of what `resolve` makes of each Handle and Graph. Raises Malformed."""
    try:
        value, end = _decode_at(data, 0, 0, resolve)
    except (struct.error, LookupError, ValueError, TypeError, ArithmeticError, OverflowError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes too many")
    return value


def _append(out: bytearray, value: Any, depth: int, replace: Callable[[Any], Any]) -> None:
    if depth > _MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {_MAX_DEPTH}")
    _check_size(out)
    kind = type(value)
    if kind not in _TYPES:
        value = replace(from_numpy(value))
        kind = type(value)
    if kind not in _TYPES:
        kind = next((base for base in _BASES if isinstance(value, base)), kind)
    if kind is float:
        out += b"d" + _FLOAT.pack(value)
    elif kind in _BYTES:
        tag, to_bytes, _ = _BYTES[kind]
        data = to_bytes(value)
        out += tag + _SIZE.pack(len(data)) + data
    elif kind in _ITEMS:
        tag, to_items, _ = _ITEMS[kind]
        _append_items(out, tag, to_items(value), depth, replace)
    elif kind in _TYPES:
        out += _TAG_OF_CONSTANT[value]
    else:
        raise NotPlain(f"an object of type {kind.__name__}")


def _append_items(out: bytearray, tag: bytes, items: Iterable[Any], depth: int, replace: Callable[[Any], Any]) -> None:
    out += tag
    offset = len(out)
    out += bytes(_SIZE.size)
    count = 0
    for item in items:
        _append(out, item, depth + 1, replace)
        count += 1
    _SIZE.pack_into(out, offset, count)


def _check_size(out: bytearray) -> None:
    if len(out) > MAX_BYTES:
        raise NotPlain(f"a value larger than {MAX_BYTES >> 20} MiB")


def _decode_at(data: bytes, offset: int, depth: int, resolve: Callable[[Any], Any]) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise Malformed("nested too deep")
    tag = data[offset : offset + 1]
    offset += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], offset
    if tag == b"d":
        return _FLOAT.unpack_from(data, offset)[0], offset + _FLOAT.size
    (size,) = _SIZE.unpack_from(data, offset)
    offset += _SIZE.size
    if size > len(data) - offset:
        raise Malformed(f"{size} announced, {len(data) - offset} bytes left")
    if tag in _FROM_BYTES:
        return _FROM_BYTES[tag](data[offset : offset + size]), offset + size
    if tag not in _FROM_ITEMS:
        raise Malformed(f"unknown tag {tag!r}")
    items = []
    for _ in range(size):
        item, offset = _decode_at(data, offset, depth + 1, resolve)
        items.append(item)
    value = _FROM_ITEMS[tag](items)
    return (resolve(value) if tag in _RESOLVED else value), offset


def _int_to_bytes(value: int) -> bytes:
    number = int.__index__(value)
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


def _run_iterator(value: Iterator[Any]) -> list[Any]:
    items = list(islice(value, _MAX_ITERATED + 1))
    if len(items) > _MAX_ITERATED:
        raise NotPlain(f"an iterator of more than {_MAX_ITERATED} items")
    return items


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False, b"E": ...}
_TAG_OF_CONSTANT = {constant: tag for tag, constant in _CONSTANTS.items()}

# The tag of each type, the bytes of a value, and the value of such bytes.
_BYTES: dict[type, tuple[bytes, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    int: (b"i", _int_to_bytes, lambda data: int.from_bytes(data, "little", signed=True)),
    complex: (b"c", lambda value: _COMPLEX.pack(value.real, value.imag), lambda data: complex(*_COMPLEX.unpack(data))),
    str: (
        b"s",
        lambda value: str.encode(value, "utf-8", "surrogatepass"),
        lambda data: str(data, "utf-8", "surrogatepass"),
    ),
    bytes: (b"b", bytes, bytes),
    bytearray: (b"B", bytes, bytearray),
    Decimal: (b"C", lambda value: str(value).encode(), lambda data: Decimal(data.decode())),
    datetime: (b"Z", lambda value: value.isoformat().encode(), lambda data: datetime.fromisoformat(data.decode())),
    date: (b"Y", lambda value: value.isoformat().encode(), lambda data: date.fromisoformat(data.decode())),
    time: (b"X", lambda value: value.isoformat().encode(), lambda data: time.fromisoformat(data.decode())),
}

# The tag of each type, the values in it, and what such values make.
_ITEMS: dict[type, tuple[bytes, Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]]] = {
    list: (b"l", list.__iter__, list),
    tuple: (b"t", tuple.__iter__, tuple),
    set: (b"S", set.__iter__, set),
    frozenset: (b"f", frozenset.__iter__, frozenset),
    deque: (b"q", iter, deque),
    dict: (
        b"D",
        lambda value: chain.from_iterable(dict.items(value)),
        lambda items: dict(zip(items[::2], items[1::2], strict=True)),
    ),
    type({}.keys()): (b"k", iter, lambda items: dict.fromkeys(items).keys()),
    range: (b"r", lambda value: (value.start, value.stop, value.step), lambda items: range(*items)),
    Fraction: (b"Q", Fraction.as_integer_ratio, lambda items: Fraction(*items)),
    timedelta: (b"W", lambda value: (value.days, value.seconds, value.microseconds), lambda items: timedelta(*items)),
    Iterator: (b"I", _run_iterator, iter),
    Handle: (b"H", lambda value: (value.number, value.kind, value.name), lambda items: Handle(*items)),
    Ref: (b"R", lambda value: (value.index,), lambda items: Ref(*items)),
    Graph: (b"O", lambda value: value.objects, Graph),
    NamedValues: (
        b"M",
        lambda value: (value.name, value.fields, value.values),
        lambda items: to_named_tuple(NamedValues(*items)),
    ),
    Array: (b"A", lambda value: (value.dtype, value.shape, value.values), lambda items: to_numpy(Array(*items))),
}
_RESOLVED = frozenset({b"H", b"O"})

_TYPES = {*map(type, _TAG_OF_CONSTANT), float, *_BYTES, *_ITEMS}
# A value of another type is encoded as the first of these that it is an instance of.
_BASES = (int, float, str, bytes, list, tuple, set, frozenset, dict, Iterator)
_FROM_BYTES = {tag: read for tag, _, read in _BYTES.values()}
_FROM_ITEMS = {tag: build for tag, _, build in _ITEMS.values()}
