"""Which names of a test are the solution's."""

import ast

import pytest

from services.verifier.sandbox.jail.child.judge_runner import find_free_names
from services.verifier.sandbox.judge_script import has_assertion

CASES = [
    (["assert add(1, 2) == 3"], "add", {"add": False}),
    (["assert set(pairs(1)) == set()"], "set", {"pairs": False}),
    (["assert sum(10, 15) == 6"], "sum", {"sum": False}),
    (["assert sum([add(1, 2)]) == 3"], "add", {"add": False}),
    (["import math\nassert math.isclose(f(1), 2)"], "f", {"f": False}),
    (["assert math.isclose(f(1), 2)"], "f", {"f": False, "math": True}),
    (["assert calendar(1) == 2"], "calendar", {"calendar": False}),
    (["x = [3]\nassert srt(x) == sorted(x)"], "srt", {"srt": False}),
    (["def check(candidate):\n    import random\n    assert poly([1], candidate([1])) == 0"], "find", {"poly": False}),
    (["def check(candidate):\n    assert candidate(1) == 2"], "find", {}),
    (["for i in range(3):\n    assert f(i) == [j for j in range(i)]"], "f", {"f": False}),
    (["try:\n    f(1)\nexcept ValueError as error:\n    assert error"], "f", {"f": False}),
    (["class T:\n    def test(self):\n        assert f(self)"], "f", {"f": False}),
    (["assert f(lambda y, *a, **k: y)"], "f", {"f": False}),
    (["from math import pi as p\nassert f(p)"], "f", {"f": False}),
    (["assert (n := f(1)) and n"], "f", {"f": False}),
    (["assert root.value == left(root)"], "left", {"left": False, "root": False}),
]


@pytest.mark.parametrize(("tests", "entry_point", "expected"), CASES)
def test_free_names_are_the_solutions(tests: list[str], entry_point: str, expected: dict[str, bool]) -> None:
    assert find_free_names([ast.parse(test) for test in tests], entry_point) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("assert f(1)", True),
        ("f(1)", False),
        ("if f(1) != 2: raise ValueError", True),
        ("self.assertEqual(f(1), 2)", True),
        ("def g():\n    assert f(1)", True),
        ("x = 'assert'", False),
        ("", False),
    ],
)
def test_code_that_can_fail_a_solution_is_known(code: str, expected: bool) -> None:
    assert has_assertion(ast.parse(code)) is expected
