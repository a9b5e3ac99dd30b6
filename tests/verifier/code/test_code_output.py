"""When printed output is the expected one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.code.output import outputs_match

SAME = [
    ("42\n", "42\n"),
    ("42", "42\n"),
    ("42  \n", "42\n"),
    ("42\r\n", "42\n"),
    ("1\n2\n\n\n", "1\n2"),
    ("1.5\n", "1.50000\n"),
    ("1.50000\n", "1.5\n"),
    ("3\n", "3.0\n"),
    ("0.3333333333333333\n", "0.333333\n"),
    ("0.33333333\n", "0.333333\n"),
    ("2.718281828\n", "2.718281828459045\n"),
    ("1e-7\n", "0.0000001\n"),
    ("x 1.50 y\n", "x 1.5 y\n"),
    ("  *\n ***\n", "  *\n ***\n"),
    ("-0.0\n", "0.0\n"),
]
DIFFERENT = [
    ("", "42\n"),
    ("41\n", "42\n"),
    ("42.0\n", "42\n"),
    ("042\n", "42\n"),
    ("+42\n", "42\n"),
    ("42\n42\n", "42\n"),
    ("42\n", "42\n43\n"),
    ("1 2\n", "1\n2\n"),
    ("1\n2\n", "1 2\n"),
    ("\n42\n", "42\n"),
    (" 42\n", "42\n"),
    ("1  2\n", "1 2\n"),
    ("yes\n", "YES\n"),
    ("answer: 42\n", "42\n"),
    ("999\x1b[2K\x1b[1G42\n", "42\n"),
    ("99\r42\n", "42\n"),
    ("9\b42\n", "42\n"),
    ("42\0\n", "42\n"),
    ("*\n***\n", "  *\n ***\n"),
    ("1.46\n", "1.5\n"),
    ("1.500002\n", "1.5\n"),
    ("0\n", "0.0000001\n"),
    ("0.33\n", "0.333333\n"),
    ("1000000.5\n", "1000000.00\n"),
    ("nan\n", "1.0\n"),
    ("inf\n", "1e300\n"),
    ("1.5 1.5\n", "1.5\n"),
    ("1_5.0\n", "15.0\n"),
    ("１.5\n", "1.5\n"),
    ("42\n", "４２\n"),
    ("1e999999999\n", "1.0\n"),
]


@pytest.mark.parametrize(("printed", "expected"), SAME)
def test_output_that_says_the_same(printed: str, expected: str) -> None:
    assert outputs_match(printed.encode(), expected.encode())


@pytest.mark.parametrize(("printed", "expected"), DIFFERENT)
def test_output_that_says_something_else(printed: str, expected: str) -> None:
    assert not outputs_match(printed.encode(), expected.encode())


@given(st.binary(), st.binary())
def test_any_two_outputs_compare(printed: bytes, expected: bytes) -> None:
    assert outputs_match(printed, printed)
    outputs_match(printed, expected)


@given(st.decimals(-(10**6), 10**6, places=4), st.decimals(-(10**6), 10**6, places=4))
def test_decimals_agree_when_they_are_close(printed: Decimal, expected: Decimal) -> None:
    agree = outputs_match(str(printed).encode(), str(expected).encode())
    half_a_place = max(Decimal("0.00005"), Decimal("1e-9") * abs(expected))
    tolerance = min(half_a_place, Decimal("1e-6") * max(1, abs(expected)))
    assert agree == (abs(printed - expected) <= tolerance)
