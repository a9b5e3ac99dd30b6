"""Runs a judge's tests against a solution in another process."""

import ast
import builtins
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.solution_client import SolutionClient, SolutionGone, UnsupportedTest
from services.verifier.sandbox.judge_script import JudgeReport, JudgeScript, has_assertion


def run_judge(source: bytes, channel: JudgeChannel) -> int:
    """Runs the packed script against the solution at the other end of the channel; reports to standard output.

    Whatever the tests print goes to standard error.
    """
    script = JudgeScript.unpack(source)
    report_descriptor = os.dup(1)
    os.dup2(2, 1)
    solution = SolutionClient(channel)
    trees = [ast.parse(test) for test in script.tests]
    report = JudgeReport(num_tests=1 if script.calls_check else sum(map(has_assertion, trees)))
    for has_passed in _run_tests(script, trees, solution, report):
        report.num_passed += has_passed
        report.num_answers = solution.num_answers
        _write_report(report, report_descriptor)
        if not has_passed and not script.is_partial:
            break
    report.is_done = True
    _write_report(report, report_descriptor)
    return 0


def find_free_names(trees: Sequence[ast.AST], entry_point: str) -> dict[str, bool]:
    """The names that the code uses and does not define, and whether each is a standard module.

    The others are the solution's. A builtin's name is the builtin, unless it is the entry point and nothing else can
    be it.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {name for node in nodes for name in _find_definitions(node)}
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - defined
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    used_without_attribute = {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in bases}
    modules = (loaded - used_without_attribute) & sys.stdlib_module_names
    free = {name for name in loaded if not hasattr(builtins, name)}
    if entry_point in loaded and not free - modules:
        free.add(entry_point)
    return {name: name in modules for name in sorted(free)}


def _find_definitions(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del(), id=name) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.alias(name=module, asname=alias):
            yield alias or module.partition(".")[0]


def _run_tests(
    script: JudgeScript, trees: list[ast.Module], solution: SolutionClient, report: JudgeReport
) -> Iterator[bool]:
    """Whether each test passed, in order; ends early when no further one can."""
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    if not _attempt(partial(_prepare, names, script, trees, solution), report):
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
    """True: passed; False: failed, others may pass; None: no later test can."""
    try:
        work()
    except (UnsupportedTest, SolutionGone) as error:
        _record_failure(report, error)
        return None
    except BaseException as error:  # noqa: BLE001 - whatever a test raises, also SystemExit, it has failed
        if not report.failure:
            _record_failure(report, error)
        return False
    return True


def _record_failure(report: JudgeReport, error: BaseException) -> None:
    report.failure = type(error).__name__
    report.message = str(error)[:500]


def _write_report(report: JudgeReport, descriptor: int) -> None:
    data = report.pack()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def _prepare(names: dict[str, Any], script: JudgeScript, trees: list[ast.Module], solution: SolutionClient) -> None:
    """Gives the tests the names that they do not define (standard modules, the solution's globals); runs the setup."""
    free = find_free_names([ast.parse(script.setup), *trees], script.entry_point)
    if script.calls_check:
        free.setdefault(script.entry_point, False)
    for name, is_module in free.items():
        names[name] = importlib.import_module(name) if is_module else solution.look_up(name)
    _execute(script.setup, "<setup>", names)


def _execute(code: str, file_name: str, names: dict[str, Any]) -> None:
    exec(compile(code, file_name, "exec", dont_inherit=True, optimize=0), names)  # noqa: S102 - the purpose
