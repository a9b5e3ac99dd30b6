"""What a judge process is given and what it reports. The service makes the script; the judge runs it."""

import ast
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

MAX_RESULTS = 256
"""Tests whose results are kept."""
_MAX_SAID = 200


@dataclass(frozen=True, slots=True)
class JudgeScript:
    """Tests of a solution: `setup` runs before them; `calls_check` tests end with `check(<entry point>)`.

    A script that is not `is_partial` ends at the first failure. `entry_point` is a name, `Solution().name`, or "".
    `packages`: what the tests may mean by names that they do not define. `has_files`: they share a folder with the
    solution.
    """

    setup: str
    tests: tuple[str, ...]
    entry_point: str
    calls_check: bool
    is_partial: bool
    keeps_results: bool = False
    packages: tuple[str, ...] = ()
    has_files: bool = False

    @property
    def num_characters(self) -> int:
        """Of all its code."""
        return sum(map(len, (self.setup, *self.tests)))

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes | str) -> "JudgeScript":
        fields = json.loads(data)
        return cls(**(fields | {name: tuple(fields[name]) for name in ("tests", "packages")}))


@dataclass(frozen=True, slots=True)
class FunctionalScript:
    """Calls of a function with JSON arguments, and the results they should have: `cases` is JSON, a list of pairs.

    A case's input is a list of arguments, an object of named ones, or text with one JSON value a line; its output is
    JSON, or text that holds it. `checker` is a program that defines `check(arguments, result, expected)`.
    """

    cases: str
    entry_point: str
    is_partial: bool
    float_tolerance: float | None = None
    checker: str = ""
    keeps_results: bool = False

    @property
    def num_characters(self) -> int:
        """Of all its code."""
        return len(self.checker)

    def pack(self) -> bytes:
        return json.dumps({"form": "functional", **asdict(self)}).encode()


@dataclass(frozen=True, slots=True)
class CheckerScript:
    """A checker and what it judges: input, output and expected output of one case."""

    source: str
    input: str
    output: str
    expected: str

    def pack(self) -> bytes:
        return json.dumps({"form": "checker", **asdict(self)}).encode()


AnyScript = JudgeScript | FunctionalScript | CheckerScript


def unpack_script(data: bytes) -> AnyScript:
    fields = json.loads(data)
    form = fields.pop("form", None)
    if form == "checker":
        return CheckerScript(**fields)
    if form == "functional":
        return FunctionalScript(**fields)
    return JudgeScript.unpack(data)


@dataclass(slots=True)
class TestResult:
    """How one test ended: the class name of what failed it, what that said, and its seconds."""

    failure: str
    said: str
    seconds: float


@dataclass(slots=True)
class JudgeReport:
    """The results so far. Written after each test, so that a killed judge has reported what it knew.

    `failure` is the class name of the first exception that failed a test, or of the one that ended the tests; a test
    that cannot be run here counts only where no other failed. `missing`: packages that the tests import and lack.
    """

    num_tests: int
    num_passed: int = 0
    num_answers: int = 0
    is_done: bool = False
    failure: str = ""
    message: str = ""
    num_unsupported: int = 0
    missing: list[str] = field(default_factory=list)
    results: list[TestResult] = field(default_factory=list)

    def pack(self) -> bytes:
        """One line. The results that an earlier line holds need not be in it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def add_result(self, failure: str, said: str, seconds: float) -> None:
        self.results.append(TestResult(failure, said[:_MAX_SAID], seconds))

    @classmethod
    def unpack(cls, data: bytes) -> "JudgeReport | None":
        """The report of the last whole line, with the results of all lines; None if there is no line."""
        lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
        if not lines:
            return None
        results = [TestResult(**result) for line in lines for result in line["results"]]
        return cls(**(lines[-1] | {"results": results}))


def has_assertion(tree: ast.AST) -> bool:
    """Whether the code can fail a solution: an `assert`, a `raise`, or a call of some `….assert…`."""
    return any(map(_is_assertion, ast.walk(tree)))


def find_test_classes(body: Sequence[ast.stmt]) -> dict[str, int]:
    """The classes of unittest's kind that the code defines, and how many tests each has."""
    found: dict[str, int] = {}
    for node in body:
        if isinstance(node, ast.ClassDef) and any(_is_test_case(base, found) for base in node.bases):
            methods = [each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found[node.name] = sum(name.startswith("test") for name in methods)
    return found


def _is_test_case(base: ast.expr, known: dict[str, int]) -> bool:
    name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
    return name in known or name.endswith("TestCase")


def _is_assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert | ast.Raise) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert")
    )
