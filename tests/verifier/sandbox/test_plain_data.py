"""Plain data: what goes in comes out, and bytes of any kind do no harm."""

import collections
import contextlib
import datetime
import enum
import fractions
import math
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.sandbox.jail.child.plain_data import Malformed, NotPlain, decode, encode

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.just(...)
    | st.integers(0, 9).map(range)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(collections.deque)
        | st.frozensets(scalars)
        | st.sets(scalars)
        | st.dictionaries(scalars, inner)
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, dict):
        return all(map(same, left, right)) and all(map(same, left.values(), right.values()))
    if isinstance(left, list | tuple | collections.deque):
        return all(map(same, left, right))
    return True


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.integers())
def test_integers_of_any_size_come_back(value: int) -> None:
    assert decode(encode(value << 5000)) == value << 5000


def test_numbers_that_equal_nothing_or_each_other_keep_what_they_are() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert math.copysign(1, decode(encode(-0.0))) == -1
    assert type(decode(encode(True))) is bool
    assert type(decode(encode(1.0))) is float


class Colour(enum.IntEnum):
    RED = 3


class Point(NamedTuple):
    x: int
    y: int


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 3),
        (Point(1, 2), (1, 2)),
        (Liar(7), 7),
        ([Liar(7)], [7]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (bytearray(b"x"), bytearray(b"x")),
    ],
)
def test_subclasses_lose_what_they_add(value: Any, plain: Any) -> None:
    assert same(decode(encode(value)), plain)


def test_iterators_are_run_and_views_are_kept() -> None:
    assert list(decode(encode(iter([1, 2])))) == [1, 2]
    assert list(decode(encode(x * x for x in range(3)))) == [0, 1, 4]
    assert decode(encode({1: 2}.keys())) == {1}


@pytest.mark.parametrize("value", [object(), len, int, lambda: 1, math, Colour, ValueError("x"), [1, {"a": object()}]])
def test_objects_are_not_plain(value: object) -> None:
    with pytest.raises(NotPlain):
        encode(value)


def test_what_is_too_deep_or_too_large_or_endless_is_not_plain() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: list[Any] = []
    cyclic.append(cyclic)

    def endless() -> Any:
        while True:
            yield 1

    for value in (deep, cyclic, endless(), ["x" * (1 << 20)] * 40):
        with pytest.raises(NotPlain):
            encode(value)
    while deep:
        deep = deep[0]


@given(st.binary())
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode(data)


@given(values, st.data())
def test_a_damaged_value_is_a_value_or_malformed(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut])):
        with contextlib.suppress(Malformed):
            decode(damaged)


def test_large_announcements_take_no_memory() -> None:
    for tag in b"lsbtSDIqkrQWi":
        with pytest.raises(Malformed):
            decode(bytes([tag]) + b"\xff\xff\xff\x7f" + b"N" * 100)
    nested = b"".join(b"l\x01\x00\x00\x00" for _ in range(5000)) + b"N"
    with pytest.raises(Malformed):
        decode(nested)


def test_fractions_and_decimals_are_exact() -> None:
    assert decode(encode(fractions.Fraction(1, 3))) == fractions.Fraction(1, 3)
    assert str(decode(encode(Decimal("1.50")))) == "1.50"
