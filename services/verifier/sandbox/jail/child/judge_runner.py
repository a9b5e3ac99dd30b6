"""The judge's side: runs tests against a solution that lives in another process."""

import ast
import builtins
import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.names_in_tests import free_names, has_assertion
from services.verifier.sandbox.jail.child.plain_data import Malformed, NotPlain, encode


class UnsupportedTest(BaseException):
    """The test needs the solution's own objects. Not an Exception: tests that catch those must not swallow it."""


class SolutionGone(BaseException):
    """The solution's process ended, or broke the channel's rules."""


class SolutionError(Exception):
    """The solution raised something that has no builtin class."""


class OpaqueResult:
    """A result that stayed in the solution's process: equal to no plain value, usable for nothing."""

    def __init__(self, description: str) -> None:
        object.__setattr__(self, "description", description)

    def __eq__(self, other: object) -> bool:
        try:
            encode(other)
        except NotPlain:
            self._unsupported()
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, 'description')}>"

    def _unsupported(self, *_: object) -> Any:
        raise UnsupportedTest(f"the test uses {object.__getattribute__(self, 'description')}")

    __bool__ = __len__ = __iter__ = __call__ = __getitem__ = __contains__ = __getattr__ = __setattr__ = _unsupported


class RemoteFunction:
    """A function of the solution."""

    def __init__(self, solution: "SolutionClient", name: str) -> None:
        self._solution = solution
        self.__name__ = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._solution.call(self.__name__, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedTest(f"the test uses {self.__name__}.{name}")


class SolutionClient:
    """The conversation with the solution, counted."""

    def __init__(self, channel: JudgeChannel) -> None:
        self._channel = channel
        self.num_answers = 0

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The function's result; raises what it raised."""
        reply = self._ask(("call", name, list(arguments), keywords))
        self.num_answers += 1
        if reply[0] == "raised":
            raise _rebuild_exception(str(reply[1]), str(reply[2]))
        return self._value(name, reply)

    def look_up(self, name: str) -> Any:
        """The solution's global: a RemoteFunction, a plain value or an OpaqueResult. NameError if there is none."""
        reply = self._ask(("get", name, [], {}))
        return RemoteFunction(self, name) if reply[0] == "callable" else self._value(name, reply)

    def _value(self, name: str, reply: tuple[Any, ...]) -> Any:
        if reply[0] == "missing":
            raise NameError(f"name '{name}' is not defined")
        return reply[1] if reply[0] == "value" else OpaqueResult(str(reply[1]))

    def _ask(self, question: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            self._channel.send(question)
            reply = self._channel.receive()
        except NotPlain as error:
            raise UnsupportedTest(f"the test passes {error} to the solution") from None
        except (EOFError, OSError):
            raise SolutionGone("its process ended") from None
        except Malformed as error:
            raise SolutionGone(f"malformed answer: {error}") from None
        sizes = {"value": 2, "object": 2, "raised": 3, "callable": 1, "missing": 1}
        if not isinstance(reply, tuple) or not reply or sizes.get(str(reply[0])) != len(reply):
            raise SolutionGone("malformed answer")
        return reply


def _rebuild_exception(kind: str, message: str) -> BaseException:
    """The exception as the judge can raise it: never one that ends processes, never one of the judge's own."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError):
        return known(message)
    return SolutionError(f"{kind}: {message}")


@dataclass(slots=True)
class JudgeReport:
    """What the service reads. Written after each test, so that a killed judge has said how far it came."""

    num_tests: int
    num_passed: int = 0
    num_answers: int = 0
    is_done: bool = False
    failure: str = ""
    message: str = ""

    def write(self, descriptor: int) -> None:
        data = json.dumps(dataclasses.asdict(self)).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


@dataclass(frozen=True, slots=True)
class JudgeScript:
    """The tests: code to run before them, each test's code, and whether they end in a call of `check(candidate)`."""

    setup: str
    tests: tuple[str, ...]
    entry_point: str
    calls_check: bool
    is_partial: bool

    def pack(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def unpack(cls, data: bytes) -> "JudgeScript":
        fields = json.loads(data)
        return cls(**(fields | {"tests": tuple(fields["tests"])}))


def run_judge(source: bytes, channel: JudgeChannel) -> int:
    """Runs the packed script against the solution at the channel's other end, and writes its report to descriptor 1."""
    script = JudgeScript.unpack(source)
    descriptor = os.dup(1)
    os.dup2(2, 1)
    solution = SolutionClient(channel)
    trees = [ast.parse(test) for test in script.tests]
    report = JudgeReport(num_tests=1 if script.calls_check else sum(map(has_assertion, trees)))
    for has_passed in _outcomes(script, trees, solution, report):
        report.num_passed += has_passed
        report.num_answers = solution.num_answers
        report.write(descriptor)
        if not has_passed and not script.is_partial:
            break
    report.is_done = True
    report.write(descriptor)
    return 0


def _outcomes(
    script: JudgeScript, trees: list[ast.Module], solution: SolutionClient, report: JudgeReport
) -> Iterator[bool]:
    """Whether each test passed, in order; ends early when no further one can."""
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    if not _attempt(lambda: _prepare(names, script, trees, solution), report):
        yield False
        return
    for position, (test, tree) in enumerate(zip(script.tests, trees, strict=True)):
        has_passed = _attempt(partial(_execute, test, f"<test {position + 1}>", names), report)
        if script.calls_check or not has_assertion(tree):
            if not has_passed:
                yield False
                return
        else:
            yield bool(has_passed)
            if has_passed is None:
                return
    if script.calls_check:
        yield bool(_attempt(lambda: names["check"](names[script.entry_point]), report))


def _attempt(work: Callable[[], object], report: JudgeReport) -> bool | None:
    """True: passed; False: failed, others may pass; None: nothing after it can."""
    try:
        work()
    except (UnsupportedTest, SolutionGone) as error:
        _record(report, error, is_last=True)
        return None
    except BaseException as error:  # noqa: BLE001 - whatever a test raises, also SystemExit, it has failed
        _record(report, error, is_last=False)
        return False
    return True


def _record(report: JudgeReport, error: BaseException, is_last: bool) -> None:
    if is_last or not report.failure:
        report.failure = type(error).__name__
        report.message = str(error)[:500]


def _execute(test: str, file_name: str, names: dict[str, Any]) -> None:
    exec(compile(test, file_name, "exec", dont_inherit=True, optimize=0), names)  # noqa: S102 - the purpose


def _prepare(names: dict[str, Any], script: JudgeScript, trees: list[ast.Module], solution: SolutionClient) -> None:
    """Gives the tests what they name and do not define (standard modules, the solution's globals); runs the setup."""
    free = free_names([ast.parse(script.setup), *trees], script.entry_point)
    if script.calls_check:
        free.setdefault(script.entry_point, False)
    for name, is_module in free.items():
        names[name] = importlib.import_module(name) if is_module else solution.look_up(name)
    _execute(script.setup, "<setup>", names)
