"""Judges functions and classes by tests that run in another process and exchange only plain data with them."""

from dataclasses import replace

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.key import PreparedFunction
from services.verifier.checks.code.outcome import outcome_of, reason_of, shorten
from services.verifier.sandbox.judge_script import JudgeReport, JudgeScript
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun, Role, Sandbox
from services.verifier.surrogates import make_text
from shared.protocol.verdict import Outcome, TestVerdict

_OUTCOME_OF_FAILURE = {
    "": Outcome.RIGHT,
    "AssertionError": Outcome.WRONG,
    "ObjectForData": Outcome.WRONG,
    "UnsupportedTest": Outcome.UNSUPPORTED,
    "MemoryError": Outcome.MEMORY,
    "ResultTooLarge": Outcome.OUTPUT_LIMIT,
}
# A judge's report may be longer than what an item lets its program print.
_REPORT_BYTES = 4 << 20


async def judge_function(sandbox: Sandbox, source: bytes, tests: PreparedFunction, limits: Limits) -> Judgement:
    """Loads the solution in one process, runs the tests in another."""
    solution = Program(source, Role.SOLUTION)
    script = tests.script
    if limits.file_bytes and isinstance(script, JudgeScript):
        script = replace(script, has_files=True)
    judge = Program(script.pack(), Role.JUDGE)
    limits = replace(limits, output_bytes=max(limits.output_bytes, _REPORT_BYTES))
    solved, judged = await sandbox.run_pair(solution, judge, limits)
    # the judge's process runs the key's tests, never the answer
    report = JudgeReport.unpack(judged.stdout)
    outcome, reason = _find_outcome(solved, judged, report, tests.script.is_partial)
    reward: float | None = float(outcome is Outcome.RIGHT)
    if not outcome.is_judged:
        reward = None
    elif tests.script.is_partial and report is not None and report.num_answers:
        reward = report.num_passed / max(report.num_tests, 1)
        reason = reason and f"{reason} ({report.num_passed} of {report.num_tests} tests passed)"
    cpu_seconds = solved.cpu_seconds + judged.cpu_seconds
    results = tuple(
        TestVerdict(outcome=_outcome_of_failure(each.failure), said=make_text(each.said), seconds=each.seconds)
        for each in (report.results if report is not None else ())
    )
    return Judgement(
        reward, outcome, shorten(reason), tests.rule, judged.seconds, cpu_seconds, sandbox.is_isolated, results
    )


def _find_outcome(
    solved: ProgramRun, judged: ProgramRun, report: JudgeReport | None, is_partial: bool
) -> tuple[Outcome, str]:
    for run in (solved, judged):
        if run.end_reason is EndReason.LOST:
            return Outcome.INFRASTRUCTURE, reason_of(run)
    if report is None or not report.is_done:
        # The solution took too much time or memory, or else the tests themselves are broken.
        if judged.end_reason in (EndReason.TIMED_OUT, EndReason.OUT_OF_MEMORY):
            return outcome_of(judged) or Outcome.RUNTIME_ERROR, reason_of(judged)
        return Outcome.UNSUPPORTED, f"the tests themselves failed: {reason_of(judged)}"
    if not report.failure:
        return (Outcome.RIGHT, "") if report.num_answers else (Outcome.UNSUPPORTED, "the tests never call the solution")
    if is_partial and report.num_unsupported:
        return (
            Outcome.UNSUPPORTED,
            f"{report.num_unsupported} of {report.num_tests} tests cannot be run: {report.message}",
        )
    if report.failure == "SolutionGone":
        if missing := [name for name in report.missing if _lacks_module(solved, name)]:
            return (
                Outcome.UNSUPPORTED,
                f"tests and answer import {', '.join(missing)}, which is not here (code.packages)",
            )
        if solved.is_clean or solved.end_reason is EndReason.STOPPED:
            return Outcome.RUNTIME_ERROR, f"the program left its tests: {report.message}"
        return outcome_of(solved) or Outcome.RUNTIME_ERROR, reason_of(solved)
    reason = f"{report.failure}: {report.message}" if report.message else report.failure
    return _outcome_of_failure(report.failure), reason


def _lacks_module(run: ProgramRun, name: str) -> bool:
    return f"ModuleNotFoundError: No module named '{name}".encode() in run.stderr


def _outcome_of_failure(failure: str) -> Outcome:
    return _OUTCOME_OF_FAILURE.get(failure, Outcome.RUNTIME_ERROR)
