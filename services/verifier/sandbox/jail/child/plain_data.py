"""Plain data between a solution and its judge: exact built-in types only, nothing that could run."""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_BYTES = 32 << 20
_MAX_DEPTH = 200
_MAX_ITERATED = 1_000_000
_KEYS: type = type({}.keys())

_SIZE = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


class NotPlain(Exception):
    """The value has no plain form; the message says what it is."""


class Malformed(Exception):
    """The bytes are no encoded value."""


def encode(value: object) -> bytes:
    """The value's bytes. Subclasses lose what they add; iterators are run to their end. Raises NotPlain."""
    out = bytearray()
    _put(out, value, 0)
    _check_size(out)
    return bytes(out)


def decode(data: bytes) -> Any:
    """The value, of exact built-in types. Raises Malformed."""
    try:
        value, end = _take(data, 0, 0)
    except (struct.error, IndexError, ValueError, TypeError, ArithmeticError, OverflowError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes too many")
    return value


def _put(out: bytearray, value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {_MAX_DEPTH}")
    _check_size(out)
    put = _PUT.get(type(value)) or next((put for kind, put in _PUT_SUBCLASS if isinstance(value, kind)), None)
    if put is None:
        raise NotPlain(f"an object of type {type(value).__name__}")
    put(out, value, depth)


def _check_size(out: bytearray) -> None:
    if len(out) > MAX_BYTES:
        raise NotPlain(f"a value larger than {MAX_BYTES >> 20} MiB")


def _put_sized(out: bytearray, tag: bytes, data: bytes) -> None:
    out += tag
    out += _SIZE.pack(len(data))
    out += data


def _put_items(out: bytearray, tag: bytes, items: Iterable[Any], depth: int) -> None:
    out += tag
    place = len(out)
    out += bytes(_SIZE.size)
    count = 0
    for item in items:
        _put(out, item, depth + 1)
        count += 1
    _SIZE.pack_into(out, place, count)


def _put_int(out: bytearray, value: int, depth: int) -> None:
    number = int.__index__(value)
    _put_sized(out, b"i", number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _put_dict(out: bytearray, value: dict[Any, Any], depth: int) -> None:
    _put_items(out, b"D", (part for item in dict.items(value) for part in item), depth)


def _put_iterator(out: bytearray, value: Iterator[Any], depth: int) -> None:
    items = list(islice(value, _MAX_ITERATED + 1))
    if len(items) > _MAX_ITERATED:
        raise NotPlain(f"an iterator of more than {_MAX_ITERATED} items")
    _put_items(out, b"I", items, depth)


def _text(tag: bytes, of: Callable[[Any], str]) -> Callable[[bytearray, Any, int], None]:
    return lambda out, value, depth: _put_sized(out, tag, of(value).encode("utf-8", "surrogatepass"))


def _items(tag: bytes, of: Callable[[Any], Iterable[Any]] = iter) -> Callable[[bytearray, Any, int], None]:
    return lambda out, value, depth: _put_items(out, tag, of(value), depth)


_put_str = _text(b"s", lambda value: str.__str__(value))

_PUT: dict[type, Callable[[bytearray, Any, int], None]] = {
    type(None): lambda out, value, depth: out.extend(b"N"),
    bool: lambda out, value, depth: out.extend(b"T" if value else b"F"),
    int: _put_int,
    float: lambda out, value, depth: out.extend(b"d" + _FLOAT.pack(value)),
    complex: lambda out, value, depth: out.extend(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: _put_str,
    bytes: lambda out, value, depth: _put_sized(out, b"b", value),
    bytearray: lambda out, value, depth: _put_sized(out, b"B", bytes(value)),
    list: _items(b"l"),
    tuple: _items(b"t"),
    set: _items(b"S"),
    frozenset: _items(b"f"),
    deque: _items(b"q"),
    dict: _put_dict,
    _KEYS: _items(b"k"),
    range: _items(b"r", lambda value: (value.start, value.stop, value.step)),
    type(...): lambda out, value, depth: out.extend(b"E"),
    Decimal: _text(b"C", str),
    Fraction: _items(b"Q", lambda value: (value.numerator, value.denominator)),
    datetime: _text(b"Z", lambda value: value.isoformat()),
    date: _text(b"Y", lambda value: value.isoformat()),
    time: _text(b"X", lambda value: value.isoformat()),
    timedelta: _items(b"W", lambda value: (value.days, value.seconds, value.microseconds)),
}

_PUT_SUBCLASS: tuple[tuple[type, Callable[[bytearray, Any, int], None]], ...] = (
    (int, _put_int),
    (float, lambda out, value, depth: out.extend(b"d" + _FLOAT.pack(value))),
    (str, _put_str),
    (bytes, lambda out, value, depth: _put_sized(out, b"b", bytes(value))),
    (list, _items(b"l", list.__iter__)),
    (tuple, _items(b"t", tuple.__iter__)),
    (set, _items(b"S", set.__iter__)),
    (frozenset, _items(b"f", frozenset.__iter__)),
    (dict, _put_dict),
    (Iterator, _put_iterator),
)


def _take(data: bytes, place: int, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise Malformed("nested too deep")
    tag = data[place : place + 1]
    place += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], place
    if tag == b"d":
        return _FLOAT.unpack_from(data, place)[0], place + 8
    if tag == b"c":
        return complex(*struct.unpack_from("<dd", data, place)), place + 16
    (size,) = _SIZE.unpack_from(data, place)
    place += _SIZE.size
    if size > len(data) - place:
        raise Malformed(f"{size} announced, {len(data) - place} bytes left")
    if tag in _OF_BYTES:
        return _OF_BYTES[tag](data[place : place + size]), place + size
    if tag not in _OF_ITEMS:
        raise Malformed(f"unknown tag {tag!r}")
    items = []
    for _ in range(size):
        item, place = _take(data, place, depth + 1)
        items.append(item)
    return _OF_ITEMS[tag](items), place


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False, b"E": ...}

_OF_BYTES: dict[bytes, Callable[[bytes], Any]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": _decoded,
    b"b": bytes,
    b"B": bytearray,
    b"C": lambda data: Decimal(_decoded(data)),
    b"Z": lambda data: datetime.fromisoformat(_decoded(data)),
    b"Y": lambda data: date.fromisoformat(_decoded(data)),
    b"X": lambda data: time.fromisoformat(_decoded(data)),
}

_OF_ITEMS: dict[bytes, Callable[[list[Any]], Any]] = {
    b"l": list,
    b"t": tuple,
    b"S": set,
    b"f": frozenset,
    b"q": deque,
    b"k": lambda items: dict.fromkeys(items).keys(),
    b"r": lambda items: range(*items),
    b"Q": lambda items: Fraction(*items),
    b"W": lambda items: timedelta(*items),
    b"I": iter,
    b"D": _pairs,
}
