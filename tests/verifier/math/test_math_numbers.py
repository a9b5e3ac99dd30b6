"""Exact rationals: what is written is what is read, and no short text asks for a long number."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.math.reading.forms import Number, Scientific
from services.verifier.checks.math.reading.number import parse_number

INTEGERS = st.integers(-(10**30), 10**30)


def _value(text: str) -> Fraction | None:
    found = parse_number(text)
    return found.value if isinstance(found, Number) else None


@given(INTEGERS)
def test_an_integer_is_itself(value: int) -> None:
    assert _value(str(value)) == value
    assert _value(f"{value:,}") == value
    assert _value(f"{value:,}".replace(",", "{,}")) == value
    assert _value(f"{value:,}".replace(",", "\\,")) == value
    assert _value(f"{value:,}".replace(",", " ")) == value


@given(INTEGERS, st.integers(0, 12))
def test_a_decimal_is_exact(value: int, num_decimals: int) -> None:
    exact = Fraction(value, 10**num_decimals)
    digits = str(abs(value)).rjust(num_decimals + 1, "0")
    cut = len(digits) - num_decimals
    sign = "-" if value < 0 else ""
    assert _value(f"{sign}{digits[:cut]}.{digits[cut:]}") == exact
    assert _value(f"{value}e-{num_decimals}") == exact
    assert _value(f"{value}\\times 10^{{-{num_decimals}}}") == exact


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.booleans())
def test_a_fraction_is_exact(over: int, under: int, is_negative: bool) -> None:
    sign = "-" if is_negative else ""
    exact = Fraction(-over if is_negative else over, under)
    for text in (f"{sign}{over}/{under}", f"{sign}\\frac{{{over}}}{{{under}}}", f"\\dfrac{{{sign}{over}}}{{{under}}}"):
        assert _value(text) == exact, text


@given(st.integers(0, 10**6), st.integers(0, 99), st.integers(1, 99))
def test_a_mixed_number_is_its_sum(whole: int, over: int, under: int) -> None:
    assert _value(f"{whole}\\frac{{{over}}}{{{under}}}") == whole + Fraction(over, under)
    assert _value(f"-{whole}\\frac{{{over}}}{{{under}}}") == -(whole + Fraction(over, under))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        "1 2",
        "1,2",
        "12,34",
        "1,2345",
        "1/0",
        "\\frac{1}{0}",
        "e5",
        "1e",
        "1.2.3",
        "0x10",
        "١٢",
        "²",
        "1_000",
        "1e1e1",
        "--1",
        "1/2/3",
        "inf",
        "nan",
        "True",
        "\\frac{1}{2",
        "1.5/2",
    ],
)
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None


def test_a_large_exponent_is_kept_as_one() -> None:
    assert parse_number("1e-1000000") == Scientific(1, -1_000_000)
    assert parse_number("10e-1000001") == Scientific(1, -1_000_000)
    assert parse_number("1e-1000000") != parse_number("1e-1000001")


@pytest.mark.parametrize(
    "text",
    [
        "1e999999999999",
        "1e-99999999999999999999",
        "9" * 100_000,
        "1." + "0" * 50_000,
        "1e" + "9" * 50_000,
        "1," * 50_000,
        "\\frac" * 20_000,
        "0" * 100_000 + "1",
        "1 " * 50_000,
    ],
)
def test_a_hostile_number_takes_no_time(text: str) -> None:
    start = time.process_time()
    parse_number(text)
    assert time.process_time() - start < 2
