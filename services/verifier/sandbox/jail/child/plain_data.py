"""The encoding of values that cross between a solution and its judge: exact built-in types, nothing that could run."""

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

# Appends a value to the bytes; the last argument is how deep it is nested.
_Encoder = Callable[[bytearray, Any, int], None]

_SIZE = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


class NotPlain(Exception):
    """The value cannot be encoded; the message says what it is."""


class Malformed(Exception):
    """The bytes are no encoded value."""


def encode(value: object) -> bytes:
    """The value's bytes. A subclass is encoded as its built-in base; an iterator is consumed. Raises NotPlain."""
    out = bytearray()
    _append(out, value, 0)
    _check_size(out)
    return bytes(out)


def decode(data: bytes) -> Any:
    """The value, of exact built-in types. Raises Malformed."""
    try:
        value, end = _decode_at(data, 0, 0)
    except (struct.error, IndexError, ValueError, TypeError, ArithmeticError, OverflowError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes too many")
    return value


def _append(out: bytearray, value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise NotPlain(f"a value nested deeper than {_MAX_DEPTH}")
    _check_size(out)
    encoder = _ENCODERS.get(type(value)) or next(
        (encoder for base, encoder in _SUBCLASS_ENCODERS if isinstance(value, base)), None
    )
    if encoder is None:
        raise NotPlain(f"an object of type {type(value).__name__}")
    encoder(out, value, depth)


def _check_size(out: bytearray) -> None:
    if len(out) > MAX_BYTES:
        raise NotPlain(f"a value larger than {MAX_BYTES >> 20} MiB")


def _append_sized(out: bytearray, tag: bytes, data: bytes) -> None:
    out += tag
    out += _SIZE.pack(len(data))
    out += data


def _append_items(out: bytearray, tag: bytes, items: Iterable[Any], depth: int) -> None:
    out += tag
    offset = len(out)
    out += bytes(_SIZE.size)
    count = 0
    for item in items:
        _append(out, item, depth + 1)
        count += 1
    _SIZE.pack_into(out, offset, count)


def _append_int(out: bytearray, value: int, depth: int) -> None:
    number = int.__index__(value)
    _append_sized(out, b"i", number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _append_dict(out: bytearray, value: dict[Any, Any], depth: int) -> None:
    _append_items(out, b"D", (part for item in dict.items(value) for part in item), depth)


def _append_iterator(out: bytearray, value: Iterator[Any], depth: int) -> None:
    items = list(islice(value, _MAX_ITERATED + 1))
    if len(items) > _MAX_ITERATED:
        raise NotPlain(f"an iterator of more than {_MAX_ITERATED} items")
    _append_items(out, b"I", items, depth)


def _text_encoder(tag: bytes, of: Callable[[Any], str]) -> _Encoder:
    return lambda out, value, depth: _append_sized(out, tag, of(value).encode("utf-8", "surrogatepass"))


def _items_encoder(tag: bytes, of: Callable[[Any], Iterable[Any]] = iter) -> _Encoder:
    return lambda out, value, depth: _append_items(out, tag, of(value), depth)


_ENCODERS: dict[type, _Encoder] = {
    type(None): lambda out, value, depth: out.extend(b"N"),
    bool: lambda out, value, depth: out.extend(b"T" if value else b"F"),
    int: _append_int,
    float: lambda out, value, depth: out.extend(b"d" + _FLOAT.pack(value)),
    complex: lambda out, value, depth: out.extend(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: _text_encoder(b"s", str.__str__),
    bytes: lambda out, value, depth: _append_sized(out, b"b", value),
    bytearray: lambda out, value, depth: _append_sized(out, b"B", bytes(value)),
    list: _items_encoder(b"l"),
    tuple: _items_encoder(b"t"),
    set: _items_encoder(b"S"),
    frozenset: _items_encoder(b"f"),
    deque: _items_encoder(b"q"),
    dict: _append_dict,
    _KEYS: _items_encoder(b"k"),
    range: _items_encoder(b"r", lambda value: (value.start, value.stop, value.step)),
    type(...): lambda out, value, depth: out.extend(b"E"),
    Decimal: _text_encoder(b"C", str),
    Fraction: _items_encoder(b"Q", lambda value: (value.numerator, value.denominator)),
    datetime: _text_encoder(b"Z", lambda value: value.isoformat()),
    date: _text_encoder(b"Y", lambda value: value.isoformat()),
    time: _text_encoder(b"X", lambda value: value.isoformat()),
    timedelta: _items_encoder(b"W", lambda value: (value.days, value.seconds, value.microseconds)),
}

_SUBCLASS_ENCODERS: tuple[tuple[type, _Encoder], ...] = (
    (int, _append_int),
    (float, lambda out, value, depth: out.extend(b"d" + _FLOAT.pack(value))),
    (str, _text_encoder(b"s", str.__str__)),
    (bytes, lambda out, value, depth: _append_sized(out, b"b", bytes(value))),
    (list, _items_encoder(b"l", list.__iter__)),
    (tuple, _items_encoder(b"t", tuple.__iter__)),
    (set, _items_encoder(b"S", set.__iter__)),
    (frozenset, _items_encoder(b"f", frozenset.__iter__)),
    (dict, _append_dict),
    (Iterator, _append_iterator),
)


def _decode_at(data: bytes, offset: int, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise Malformed("nested too deep")
    tag = data[offset : offset + 1]
    offset += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], offset
    if tag == b"d":
        return _FLOAT.unpack_from(data, offset)[0], offset + 8
    if tag == b"c":
        return complex(*struct.unpack_from("<dd", data, offset)), offset + 16
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
        item, offset = _decode_at(data, offset, depth + 1)
        items.append(item)
    return _FROM_ITEMS[tag](items), offset


def _make_dict(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False, b"E": ...}

_FROM_BYTES: dict[bytes, Callable[[bytes], Any]] = {
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"s": _decode_text,
    b"b": bytes,
    b"B": bytearray,
    b"C": lambda data: Decimal(_decode_text(data)),
    b"Z": lambda data: datetime.fromisoformat(_decode_text(data)),
    b"Y": lambda data: date.fromisoformat(_decode_text(data)),
    b"X": lambda data: time.fromisoformat(_decode_text(data)),
}

_FROM_ITEMS: dict[bytes, Callable[[list[Any]], Any]] = {
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
    b"D": _make_dict,
}
