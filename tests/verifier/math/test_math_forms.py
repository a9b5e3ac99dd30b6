"""Right answers in the forms that people write them, and their near misses: tests/verifier/data/math_forms.txt.

A line `answer ~> gold` is right, a line `answer !> gold` is wrong.
"""

import re

import pytest

from services.verifier.checks.math.comparing.equivalence import Equivalence
from tests.verifier.judging import DATA, find

LINES = [line for line in (DATA / "math_forms.txt").read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", LINES)
def test_a_form_is_understood_and_its_near_miss_is_not(line: str) -> None:
    answer, sign, gold = re.split(r" ([~!]>) ", line)
    found = find(gold, rf"\boxed{{{answer}}}")
    assert found is not None
    assert found.equivalence is (Equivalence.SAME if sign == "~>" else Equivalence.DIFFERENT), found
