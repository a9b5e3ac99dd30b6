"""The answer keys of code items, and the tests prepared from them."""

import ast
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from services.verifier.checks.check import read_key
from services.verifier.checks.code.extraction import Language, find_program_in
from services.verifier.sandbox.judge_script import JudgeScript, has_assertion
from shared.errors import InvalidInput
from shared.protocol.message import Message
from shared.protocol.verdict import VerdictItem

_MAX_TEST_CHARACTERS = 200_000
MAX_READ_HERE = 20_000
"""Characters of tests; longer ones are looked through by a worker: parsing them would hold up the event loop."""

Name = Annotated[str, Field(pattern=r"^[^\W\d]\w*$", max_length=200)]
TestCode = Annotated[str, Field(max_length=_MAX_TEST_CHARACTERS)]


class StdioCase(Message):
    """The program's input and expected output."""

    input: str = ""
    output: str


class StdioTests(Message):
    """Tests of a whole program, by its output."""

    type: Literal["stdio"]
    language: Literal["python", "javascript"] = "python"
    cases: tuple[StdioCase, ...] = Field(min_length=1, max_length=2000)


class AssertTests(Message):
    """Tests of a function by assertions; `setup` runs before them, in the judge's process."""

    type: Literal["assert"]
    entry_point: Name
    asserts: tuple[TestCode, ...] = Field(min_length=1, max_length=2000)
    setup: TestCode = ""


class CheckTests(Message):
    """Tests of a function by a `check(candidate)` that `test` defines (HumanEval's form)."""

    type: Literal["check"]
    entry_point: Name
    test: TestCode
    setup: TestCode = ""


class CodeKey(Message):
    """The tests, and whether the reward is the share of tests passed."""

    tests: Annotated[StdioTests | AssertTests | CheckTests, Field(discriminator="type")]
    partial_credit: bool = False


@dataclass(frozen=True, slots=True)
class PreparedStdio:
    """Input and expected output of each case."""

    cases: tuple[tuple[bytes, bytes], ...]
    is_partial: bool
    language: Language

    rule = "stdio"
    entry_point = None


@dataclass(frozen=True, slots=True)
class PreparedFunction:
    """A judge's script."""

    script: JudgeScript
    rule: str

    language = Language.PYTHON

    @property
    def entry_point(self) -> str:
        return self.script.entry_point


PreparedTests = PreparedStdio | PreparedFunction


def prepare_tests(item: VerdictItem) -> PreparedTests:
    """The item's tests. Raises InvalidInput for tests that every program would pass, or none."""
    key = read_key(CodeKey, item)
    tests = key.tests
    if isinstance(tests, StdioTests):
        return _prepare_stdio(item.id, tests, key.partial_credit)
    if isinstance(tests, AssertTests):
        script = JudgeScript(
            tests.setup, tests.asserts, tests.entry_point, calls_check=False, is_partial=key.partial_credit
        )
    else:
        script = JudgeScript(tests.setup, (tests.test,), tests.entry_point, calls_check=True, is_partial=False)
    _require_assertions(item.id, script)
    return PreparedFunction(script, tests.type)


def _prepare_stdio(item_id: str, tests: StdioTests, is_partial: bool) -> PreparedStdio:
    cases = tuple((_encode(case.input), _encode(case.output)) for case in tests.cases)
    if not any(output.strip() for _, output in cases):
        raise InvalidInput(
            f"item {item_id!r}: none of the {len(cases)} cases expects any output, so that an empty program would "
            "pass; give the outputs"
        )
    return PreparedStdio(cases, is_partial, Language[tests.language.upper()])


def _require_assertions(item_id: str, script: JudgeScript) -> None:
    if script.num_characters > _MAX_TEST_CHARACTERS:
        raise InvalidInput(
            f"item {item_id!r}: its tests have more than {_MAX_TEST_CHARACTERS} characters; shorten them"
        )
    fault = "" if script.num_characters > MAX_READ_HERE else find_fault(script)
    if fault:
        raise InvalidInput(f"item {item_id!r}: {fault}")


def work(task: str, *arguments: Any) -> str:
    """For workers, what would hold up the loop: the "fault" of a packed script, or the "program" of a response."""
    return find_fault(JudgeScript.unpack(*arguments)) if task == "fault" else find_program_in(*arguments)


@lru_cache(maxsize=64)  # the leaves of a tree share their tests
def find_fault(script: JudgeScript) -> str:
    """Why its tests can judge nothing; empty where they can."""
    trees = []
    for code in (script.setup, *script.tests):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trees.append(ast.parse(code))
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            return f"its tests are no Python ({error}): {code[:80]!r}"
    if not any(map(has_assertion, trees[1:])):
        return "its tests assert nothing, so that anything would pass; add assertions"
    if script.calls_check and not any(map(_defines_check, trees)):
        return "its test defines no function check(candidate); HumanEval's form has one"
    return ""


def _defines_check(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
