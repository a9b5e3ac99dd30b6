"""Right answers in the forms that people write them, and their near misses: tests/verifier/data/math_forms.txt.

A line `answer ~> gold` is right, a line `answer !> gold` is wrong.
"""

import re

import pytest

from services.verifier.checks.math.comparing.equivalence import Equivalence
from tests.verifier.judging import DATA, find

SECTIONS = dict(
    (part.partition("\n")[::2]) for part in (DATA / "math_forms.txt").read_text().removeprefix("# ").split("\n# ")
)


def _judge(line: str) -> tuple[Equivalence | None, bool]:
    """What is found, and whether the line says that it is right."""
    answer, sign, gold = re.split(r" ([~!]>) ", line)
    found = find(gold, rf"\boxed{{{answer}}}")
    return None if found is None else found.equivalence, sign == "~>"


@pytest.mark.parametrize("section", SECTIONS)
def test_forms_are_understood_and_their_near_misses_are_not(section: str) -> None:
    lines = [line for line in SECTIONS[section].splitlines() if line]
    judged = {line: _judge(line) for line in lines}
    assert len(lines) > 5
    assert [line for line, (found, is_right) in judged.items() if found is not Equivalence.of(is_right)] == []
