"""Judges whole programs by what they print. The expected outputs never enter a program's process."""

import asyncio
from dataclasses import dataclass, field, replace

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.key import PreparedStdio
from services.verifier.checks.code.outcome import outcome_of, reason_of, shorten
from services.verifier.checks.code.output import Whitespace, outputs_match
from services.verifier.sandbox.judge_script import MAX_RESULTS, CheckerScript, JudgeReport
from services.verifier.sandbox.sandbox import Limits, Program, ProgramRun, Role, Sandbox
from shared.protocol.verdict import Outcome, TestVerdict

_MAX_SHOWN_BYTES = 200


@dataclass(slots=True)
class _Tally:
    """The results of the cases so far."""

    num_passed: int = 0
    outcome: Outcome = Outcome.RIGHT
    reason: str = ""
    cpu_seconds: float = 0.0
    tests: list[TestVerdict] = field(default_factory=list)

    def add(self, number: int, outcome: Outcome, reason: str) -> None:
        if outcome is Outcome.RIGHT:
            self.num_passed += 1
        # the first failure decides, except that what is no fault of the answer outweighs it
        elif self.outcome is Outcome.RIGHT or not outcome.is_judged:
            self.outcome, self.reason = outcome, f"case {number}: {reason}"


async def judge_stdio(
    sandbox: Sandbox, program: Program, tests: PreparedStdio, limits: Limits, item_seconds: float
) -> Judgement:
    """Runs the program on each case in a new process, until one fails; with partial credit, on all of them."""
    tally = _Tally()
    spent = 0.0
    for number, (stdin, expected) in enumerate(tests.cases, start=1):
        left = item_seconds - spent
        if left <= 0:
            tally.add(number, Outcome.TIMED_OUT, f"the item's {item_seconds:g} seconds are over")
            break
        bounded = replace(limits, wall_seconds=min(limits.wall_seconds, left))
        run = await sandbox.run(replace(program, stdin=stdin), bounded)
        spent += run.seconds
        tally.cpu_seconds += run.cpu_seconds
        outcome, reason = await _judge_run(sandbox, run, tests, stdin, expected, bounded)
        tally.add(number, outcome, reason)
        if tests.keeps_results and number <= MAX_RESULTS:
            tally.tests.append(_describe(run, outcome))
        if not tally.outcome.is_judged or (tally.outcome is not Outcome.RIGHT and not tests.is_partial):
            break
    return _to_judgement(tally, tests, spent, sandbox.is_isolated)


async def _judge_run(
    sandbox: Sandbox, run: ProgramRun, tests: PreparedStdio, stdin: bytes, expected: bytes, limits: Limits
) -> tuple[Outcome, str]:
    failure = outcome_of(run)
    if failure is not None:
        return failure, reason_of(run)
    if tests.checker:
        return await _ask_checker(sandbox, tests.checker, (stdin, run.stdout, expected), limits)
    is_right = await _matches(run.stdout, expected, tests.whitespace, tests.float_tolerance)
    return (Outcome.RIGHT, "") if is_right else (Outcome.WRONG, "the output differs")


async def _matches(printed: bytes, expected: bytes, whitespace: Whitespace, tolerance: float | None) -> bool:
    # long outputs are compared beside the event loop
    return printed == expected or await asyncio.to_thread(outputs_match, printed, expected, whitespace, tolerance)


async def _ask_checker(
    sandbox: Sandbox, checker: str, texts: tuple[bytes, bytes, bytes], limits: Limits
) -> tuple[Outcome, str]:
    """What the checker says, in a jail of its own. A checker that fails says nothing about the answer."""
    given, printed, expected = (text.decode("utf-8", "surrogateescape") for text in texts)
    script = CheckerScript(checker, given, printed, expected)
    run = await sandbox.run(Program(script.pack(), Role.JUDGE), limits)
    report = JudgeReport.unpack(run.stdout)
    if not run.is_clean or report is None:
        failure = outcome_of(run)
        outcome = Outcome.INFRASTRUCTURE if failure is Outcome.INFRASTRUCTURE else Outcome.UNSUPPORTED
        return outcome, f"the checker failed: {reason_of(run)}"
    if not report.failure:
        return Outcome.RIGHT, ""
    return Outcome.WRONG if report.failure == "AssertionError" else Outcome.UNSUPPORTED, report.message


def _describe(run: ProgramRun, outcome: Outcome) -> TestVerdict:
    head = run.stdout[:_MAX_SHOWN_BYTES].decode("utf-8", "replace")
    return TestVerdict(outcome=outcome, said=head, seconds=run.seconds, peak_memory_bytes=run.peak_memory_bytes or None)


def _to_judgement(tally: _Tally, tests: PreparedStdio, seconds: float, is_isolated: bool) -> Judgement:
    num_cases = len(tests.cases)
    reward: float | None = float(tally.num_passed == num_cases)
    if tests.is_partial:
        reward = tally.num_passed / num_cases
    if not tally.outcome.is_judged:
        reward = None
    reason = tally.reason and f"{tally.reason} ({tally.num_passed} of {num_cases} cases passed)"
    return Judgement(
        reward, tally.outcome, shorten(reason), tests.rule, seconds, tally.cpu_seconds, is_isolated, tuple(tally.tests)
    )
