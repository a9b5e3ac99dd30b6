"""Runs single tests, and counts and reports how they end."""

import importlib
import os
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from services.verifier.sandbox.jail.child.solution_client import (
    ObjectForData,
    SolutionClient,
    SolutionGone,
    UnsupportedTest,
)
from services.verifier.sandbox.judge_script import MAX_RESULTS, JudgeReport

_UNSUPPORTED = UnsupportedTest.__name__
_MAX_MESSAGE = 500


class TestTally:
    """The tests so far. `is_over`: no further test can change the outcome."""

    def __init__(
        self, solution: SolutionClient, report: JudgeReport, descriptor: int, is_partial: bool, keeps_results: bool
    ) -> None:
        self.report = report
        self.is_over = False
        self.general_doubt = ""
        """Why any test that fails may have failed a right answer."""
        self.has_files = False
        """Whether a file that a test misses is one that the answer should have written."""
        self._solution = solution
        self._descriptor = descriptor
        self._is_partial = is_partial
        self._keeps_results = keeps_results
        self._num_results = 0

    def judge(self, work: Callable[[], object]) -> None:
        """Runs one test."""
        started = time.perf_counter()
        self.count(self._attempt(work), time.perf_counter() - started)

    def prepare(self, work: Callable[[], object]) -> bool:
        """Runs what is no test itself; if it fails, no test can pass."""
        error = self._attempt(work)
        if error is not None:
            self._record(error)
            self.is_over = True
        self._write()
        return error is None

    def one_test(self) -> "_OneTest":
        """A context in which one test runs; it swallows the failure."""
        return _OneTest(self)

    def run_test_class(self, kind: Any) -> None:
        """Runs the tests of a unittest class."""
        unittest = importlib.import_module("unittest")  # here: no other child needs it
        if not (isinstance(kind, type) and issubclass(kind, unittest.TestCase)):
            return
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(kind):
            if self.is_over:
                return
            self.judge(partial(_run_suite, unittest.TestSuite([test]), unittest.TestResult()))

    def count(self, error: BaseException | None, seconds: float) -> None:
        report = self.report
        report.num_passed += error is None
        report.num_answers = self._solution.num_answers
        if error is not None:
            self._record(error)
            report.num_unsupported += isinstance(error, UnsupportedTest)
            is_last = not self._is_partial and not isinstance(error, UnsupportedTest)
            self.is_over = self.is_over or is_last or isinstance(error, SolutionGone)
        self._num_results += self._keeps_results
        if self._keeps_results and self._num_results <= MAX_RESULTS:
            report.add_result(_name_of(error), "" if error is None else _text_of(error), seconds)
        self._write()

    def finish(self) -> None:
        self.report.is_done = True
        self._write()

    def explain(self, error: BaseException | None) -> BaseException | None:
        """What ended a test that ended with `error`: also what it swallowed, and what is no fault of the answer."""
        solution, doubt = self._solution, self._solution.doubt or self.general_doubt
        ending = solution.ending
        solution.doubt = ""
        if isinstance(ending, UnsupportedTest | ObjectForData):
            solution.ending = None
        if ending is not None:
            return ending
        if error is None or isinstance(error, UnsupportedTest):
            return error
        if self._is_own(error):
            return UnsupportedTest(explain_own(error))
        return UnsupportedTest(doubt) if doubt else error

    def _is_own(self, error: BaseException) -> bool:
        """Whether the tests lack something: with files, one that they miss before the answer was asked for anything."""
        if hasattr(error, "from_solution") or not isinstance(error, ImportError | OSError):
            return False
        is_missing = isinstance(error, FileNotFoundError | PermissionError) and not self._solution.num_answers
        return isinstance(error, ImportError) or not self.has_files or is_missing

    def _attempt(self, work: Callable[[], object]) -> BaseException | None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever a test raises, also SystemExit, it has failed
            return self.explain(error)
        return self.explain(None)

    def _record(self, error: BaseException) -> None:
        report = self.report
        if not report.failure or (report.failure == _UNSUPPORTED and not isinstance(error, UnsupportedTest)):
            report.failure = _name_of(error)
            report.message = _text_of(error)

    def _write(self) -> None:
        os.write(self._descriptor, self.report.pack())
        self.report.results.clear()


class _OneTest:
    def __init__(self, tally: TestTally) -> None:
        self._tally = tally
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: types.TracebackType | None) -> bool:
        error = self._tally.explain(error)
        self._tally.count(error, time.perf_counter() - self._started)
        return not isinstance(error, SolutionGone)


def _run_suite(suite: Any, result: Any) -> None:
    """Raises what failed a test, which a TestResult would keep as text."""
    errors: list[BaseException] = []

    def keep(*what: Any) -> None:
        if isinstance(what[-1], tuple):
            errors.append(what[-1][1])

    result.addError = result.addFailure = result.addSubTest = keep
    result.addUnexpectedSuccess = lambda _: errors.append(AssertionError("a failure was expected"))
    suite.run(result)
    if errors:
        raise errors[0]


def _name_of(error: BaseException | None) -> str:
    return "" if error is None else str(getattr(error, "from_solution", type(error).__name__))


def _text_of(error: BaseException) -> str:
    text = str(error)
    name = type(error).__name__
    return (f"{name}: {text}" if name != _name_of(error) else text)[:_MAX_MESSAGE]


def explain_own(error: BaseException) -> str:
    """Why tests fail that need what is not here."""
    what = f"the tests themselves failed: {type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        return f"{what}; programs and tests may import the standard library and the packages of code.packages"
    return f"{what}; the jail has no such file"
