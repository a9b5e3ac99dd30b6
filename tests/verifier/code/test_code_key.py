"""Keys that anything, or nothing, could pass are refused before any code runs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.code.check import CodeCheck
from services.verifier.config import CodeConfig
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox
from shared.errors import InvalidInput
from shared.protocol.verdict import VerdictItem
from tests.verifier.code.judging import asserts, code_item, stdio

CHECK = CodeCheck(UnsafeSandbox(1), CodeConfig())

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no tests": ({}, "answer_key.tests"),
    "an unknown type": ({"tests": {"type": "magic"}}, "answer_key.tests"),
    "no cases": ({"tests": stdio()}, "cases"),
    "cases without any output": ({"tests": stdio(("1", ""), ("2", " \n"))}, "none of the 2 cases expects any output"),
    "no asserts": ({"tests": asserts()}, "asserts"),
    "tests that do not parse": ({"tests": asserts("assert f(")}, "no Python"),
    "tests with a null byte": ({"tests": asserts("assert f()\0")}, "no Python"),
    "tests that assert nothing": ({"tests": asserts("f(1)", "x = 1")}, "assert nothing"),
    "only comments": ({"tests": asserts("# assert f()")}, "assert nothing"),
    "an assertion only in the setup": ({"tests": asserts("f(1)", setup="assert True")}, "assert nothing"),
    "an entry point that is no name": ({"tests": asserts("assert f()", entry_point="f()")}, "entry_point"),
    "an empty entry point": ({"tests": asserts("assert f()", entry_point="")}, "entry_point"),
    "a check form without check": (
        {"tests": {"type": "check", "entry_point": "f", "test": "assert f()"}},
        "defines no function check",
    ),
    "an empty check": (
        {"tests": {"type": "check", "entry_point": "f", "test": "def check(candidate):\n    pass"}},
        "assert nothing",
    ),
    "a misspelt field": ({"tests": asserts("assert f()"), "partial": True}, "partial"),
    "tests nested too deep to parse": ({"tests": asserts("assert " + "(" * 1_500 + "1" + ")" * 1_500)}, "no Python"),
    "more tests than any need": ({"tests": asserts(*["assert f(1)\n" * 1000] * 20)}, "more than 200000 characters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_cannot_judge_is_refused(name: str) -> None:
    key, said = REFUSED[name]
    with pytest.raises(InvalidInput, match=said):
        CHECK.prepare(VerdictItem(id="x", kind="code", response="def f(): pass", answer_key=key))


def test_an_oversized_response_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1048577 characters; this verifier takes 1048576"):
        CHECK.prepare(code_item("x" * 1_048_577, asserts("assert f()")))


@pytest.mark.parametrize(
    "tests",
    [
        stdio(("", "42")),
        stdio(("1", "2"), ("3", "")),
        asserts("assert f()", setup="import math"),
        asserts("x = 1", "assert f(x)"),
        {"type": "check", "entry_point": "f", "test": "def check(c):\n    assert c()"},
    ],
)
def test_a_key_of_every_form_is_taken(tests: dict[str, Any]) -> None:
    assert CHECK.prepare(code_item("x", tests)).key.rule == tests["type"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=9),
        lambda x: st.lists(x) | st.dictionaries(st.text(max_size=9), x, max_size=4),
    )
)
def test_any_json_is_a_key_or_refused(tests: Any) -> None:
    with pytest.raises(InvalidInput):
        CHECK.prepare(VerdictItem(id="x", kind="code", response="x", answer_key={"tests": tests}))
