"""The answer keys of code items, and the tests prepared from them."""

import ast
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from services.verifier.checks.check import read_key
from services.verifier.checks.code.extraction import Language, find_program_in
from services.verifier.checks.code.needs import NO_NEEDS, Files, Needs, find_needs, mention_files
from services.verifier.checks.code.output import Whitespace
from services.verifier.checks.code.set_forms import read_set_form
from services.verifier.config import PackageName
from services.verifier.sandbox.judge_script import FunctionalScript, JudgeScript, has_assertion
from shared.errors import InvalidInput
from shared.protocol.message import Message
from shared.protocol.verdict import VerdictItem

_MAX_TEST_CHARACTERS = 200_000
# The parser refuses longer ones, which a judge's process takes.
_LONG_INTEGER = re.compile(r"\d{4000,}")
_MAX_CHECKER_CHARACTERS = 20_000
MAX_READ_HERE = 4_000
"""Characters of tests; longer ones are looked through by a worker: parsing them would hold up the event loop."""

# A function's name, or a method's of a class of which each call has a new object.
EntryPoint = Annotated[str, Field(pattern=r"^(?:[^\W\d]\w*(?:\(\))?\.)?[^\W\d]\w*$", max_length=200)]
CheckerCode = Annotated[str, Field(max_length=_MAX_CHECKER_CHARACTERS)]
TestCode = Annotated[str, Field(max_length=_MAX_TEST_CHARACTERS)]


Tolerance = Annotated[float, Field(ge=0, le=1)]


class StdioCase(Message):
    """The program's input and expected output."""

    input: str = ""
    output: str


class StdioTests(Message):
    """Tests of a whole program, by its output.

    `float_tolerance`: how far a printed number may be from the expected one, absolute, and relative above 1. `checker`:
    a program that decides instead of a comparison.
    """

    type: Literal["stdio"]
    language: Literal["python", "javascript", "cpp"] = "python"
    cases: tuple[StdioCase, ...] = Field(min_length=1, max_length=2000)
    whitespace: Whitespace = Whitespace.LINES
    float_tolerance: Tolerance | None = None
    checker: CheckerCode = ""


class AssertTests(Message):
    """Tests of a function by assertions; `setup` runs before them, in the judge's process."""

    type: Literal["assert"]
    entry_point: EntryPoint | None = None
    asserts: tuple[TestCode, ...] = Field(min_length=1, max_length=2000)
    setup: TestCode = ""


class CheckTests(Message):
    """Tests of a function by a `check(candidate)` that `test` defines (HumanEval's form)."""

    type: Literal["check"]
    entry_point: EntryPoint
    test: TestCode
    setup: TestCode = ""


class UnittestTests(Message):
    """Tests by classes of unittest (ClassEval's form)."""

    type: Literal["unittest"]
    test: TestCode
    entry_point: EntryPoint | None = None
    setup: TestCode = ""


class FunctionalTests(Message):
    """Tests of a function by its results for JSON arguments (LiveCodeBench's, APPS's and TACO's form).

    `checker`: a program with a function `check(arguments, result, expected)` that decides instead of a comparison.
    """

    type: Literal["functional"]
    entry_point: EntryPoint = Field(validation_alias=AliasChoices("fn_name", "entry_point"))
    inputs: tuple[Any, ...] = Field(min_length=1, max_length=2000)
    outputs: tuple[Any, ...] = Field(min_length=1, max_length=2000)
    float_tolerance: Tolerance | None = None
    checker: CheckerCode = ""

    @model_validator(mode="after")
    def _check_lengths(self) -> "FunctionalTests":
        if len(self.inputs) != len(self.outputs):
            raise ValueError(
                f"{len(self.inputs)} inputs and {len(self.outputs)} outputs; give one output for each input"
            )
        return self


class CodeKey(Message):
    """The tests, whether the reward is the share of tests passed, and whether the verdict has a result of each test.

    `packages`: what the problem needs besides the standard library. `files`: whether program and tests share a folder
    for files; without it, where the tests mention files. `reference`: a right solution, which tells both where they are
    not given; an answer that fails is charged only if the reference passes.
    """

    tests: Annotated[
        StdioTests | AssertTests | CheckTests | UnittestTests | FunctionalTests, Field(discriminator="type")
    ]
    partial_credit: bool = False
    test_results: bool = False
    packages: tuple[PackageName, ...] | None = Field(None, max_length=64)
    files: bool | None = None
    reference: CheckerCode = ""


@dataclass(frozen=True, slots=True)
class PreparedStdio:
    """Input and expected output of each case, and how outputs are compared."""

    cases: tuple[tuple[bytes, bytes], ...]
    is_partial: bool
    language: Language
    whitespace: Whitespace = Whitespace.LINES
    float_tolerance: float | None = None
    checker: str = ""
    keeps_results: bool = False
    needs: Needs = NO_NEEDS
    reference: str = ""

    rule = "stdio"
    entry_point = None


@dataclass(frozen=True, slots=True)
class PreparedFunction:
    """A judge's script."""

    script: JudgeScript | FunctionalScript
    rule: str
    needs: Needs = NO_NEEDS
    reference: str = ""

    language = Language.PYTHON

    @property
    def entry_point(self) -> str | None:
        return self.script.entry_point.rpartition(".")[2] or None


PreparedTests = PreparedStdio | PreparedFunction


def prepare_tests(item: VerdictItem) -> PreparedTests:
    """The item's tests. Raises InvalidInput for tests that every program would pass, or none."""
    try:
        given = read_set_form(item.answer_key)
    except ValueError as error:
        raise InvalidInput(f"item {item.id!r}: {error}") from None
    key = read_key(CodeKey, item.model_copy(update={"answer_key": given}))
    tests = key.tests
    if key.reference and not (isinstance(tests, StdioTests) and tests.language != "python"):
        key = _complete_needs(item.id, key)
    if isinstance(tests, StdioTests):
        if tests.language != "python" and (key.packages or key.files):
            raise InvalidInput(
                f"item {item.id!r}: a {tests.language} program has no `packages` and no `files`; drop them"
            )
        return _prepare_stdio(item.id, tests, key)
    if isinstance(tests, FunctionalTests):
        return _prepare_functional(item.id, tests, key)
    return _prepare_script(item.id, tests, key)


def _prepare_script(item_id: str, tests: AssertTests | CheckTests | UnittestTests, key: CodeKey) -> PreparedFunction:
    codes = tests.asserts if isinstance(tests, AssertTests) else (tests.test,)
    script = JudgeScript(
        tests.setup,
        codes,
        tests.entry_point or "",
        calls_check=isinstance(tests, CheckTests),
        is_partial=key.partial_credit,
        keeps_results=key.test_results,
        packages=tuple(key.packages or ()),
    )
    _require_assertions(item_id, script)
    return PreparedFunction(script, tests.type, _find_needs(key, (script.setup, *script.tests)), key.reference)


def _complete_needs(item_id: str, key: CodeKey) -> CodeKey:
    """The key with what its reference needs, unless it says so itself."""
    try:
        found = _needs_of_reference(key.reference)
    except _UNREADABLE as error:
        raise InvalidInput(f"item {item_id!r}: its reference is no Python ({error})") from None
    given = key.model_dump(include={"packages", "files"}, exclude_none=True)
    return key.model_copy(update=found | given)


_needs_of_reference = lru_cache(maxsize=64)(find_needs)  # the leaves of a tree share their key


def _find_needs(key: CodeKey, codes: Sequence[str] = ()) -> Needs:
    files = Files.REQUIRED if key.files else Files.NO
    if key.files is None and mention_files(codes):
        files = Files.MENTIONED
    return Needs(tuple(key.packages or ()), files)


def _prepare_functional(item_id: str, tests: FunctionalTests, key: CodeKey) -> PreparedFunction:
    script = FunctionalScript(
        json.dumps(list(zip(tests.inputs, tests.outputs, strict=True))),
        tests.entry_point,
        key.partial_credit,
        tests.float_tolerance,
        tests.checker,
        key.test_results,
    )
    if tests.checker and (fault := find_checker_fault(tests.checker, needs_check=True)):
        raise InvalidInput(f"item {item_id!r}: {fault}")
    return PreparedFunction(script, tests.type, _find_needs(key), key.reference)


def _prepare_stdio(item_id: str, tests: StdioTests, key: CodeKey) -> PreparedStdio:
    cases = tuple((_encode(case.input), _encode(case.output)) for case in tests.cases)
    if tests.checker:
        if fault := find_checker_fault(tests.checker, needs_check=False):
            raise InvalidInput(f"item {item_id!r}: {fault}")
    elif not any(output.strip() for _, output in cases):
        raise InvalidInput(
            f"item {item_id!r}: none of the {len(cases)} cases expects any output, so that an empty program would "
            "pass; give the outputs"
        )
    return PreparedStdio(
        cases,
        key.partial_credit,
        Language[tests.language.upper()],
        tests.whitespace,
        tests.float_tolerance,
        tests.checker,
        key.test_results,
        _find_needs(key),
        key.reference,
    )


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
def find_fault(script: JudgeScript | FunctionalScript) -> str:
    """Why its tests can judge nothing; empty where they can."""
    if isinstance(script, FunctionalScript):
        return find_checker_fault(script.checker, needs_check=True) if script.checker else ""
    trees = []
    for code in (script.setup, *script.tests):
        try:
            trees.append(_parse(code))
        except _UNREADABLE as error:
            return f"its tests are no Python ({error}): {code[:80]!r}"
    if not any(map(has_assertion, trees[1:])):
        return "its tests assert nothing, so that anything would pass; add assertions"
    if script.calls_check and not any(map(_defines_check, trees)):
        return "its test defines no function check(candidate); HumanEval's form has one"
    return ""


@lru_cache(maxsize=64)
def find_checker_fault(source: str, needs_check: bool) -> str:
    """Why a checker can judge nothing; empty where it can."""
    try:
        tree = _parse(source)
    except _UNREADABLE as error:
        return f"its checker is no Python ({error}): {source[:80]!r}"
    if needs_check and not _defines_check(tree):
        return "its checker defines no function check(arguments, result, expected)"
    return ""


_UNREADABLE = (SyntaxError, ValueError, MemoryError, RecursionError)


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(_LONG_INTEGER.sub("1", code))


def _defines_check(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
