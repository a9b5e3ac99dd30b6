"""Judges whole programs by what they print. The expected outputs never leave the service."""

import asyncio
from dataclasses import dataclass, replace

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.key import PreparedStdio
from services.verifier.checks.code.outcome import outcome_of, reason_of
from services.verifier.checks.code.output import outputs_match
from services.verifier.sandbox.sandbox import Limits, Program, ProgramRun, Sandbox
from shared.protocol.verdict import Outcome


@dataclass(slots=True)
class _Tally:
    """The results of the cases so far."""

    num_passed: int = 0
    outcome: Outcome = Outcome.RIGHT
    reason: str = ""
    cpu_seconds: float = 0.0

    async def add(self, number: int, run: ProgramRun, expected: bytes) -> None:
        self.cpu_seconds += run.cpu_seconds
        outcome = outcome_of(run)
        if outcome is None and await _matches(run.stdout, expected):
            self.num_passed += 1
            return
        if outcome is None:
            self.fail(Outcome.WRONG, f"case {number}: the output differs")
        else:
            self.fail(outcome, f"case {number}: {reason_of(run)}")

    def fail(self, outcome: Outcome, reason: str) -> None:
        """The first failure decides the outcome, except that the verifier's own failure outweighs it."""
        if self.outcome is Outcome.RIGHT or outcome is Outcome.INFRASTRUCTURE:
            self.outcome, self.reason = outcome, reason


async def _matches(printed: bytes, expected: bytes) -> bool:
    # long outputs are compared beside the event loop
    return printed == expected or await asyncio.to_thread(outputs_match, printed, expected)


async def judge_stdio(
    sandbox: Sandbox, program: Program, tests: PreparedStdio, limits: Limits, item_seconds: float
) -> Judgement:
    """Runs the program on each case in a new process, until one fails; with partial credit, on all of them."""
    tally = _Tally()
    spent = 0.0
    for number, (stdin, expected) in enumerate(tests.cases, start=1):
        left = item_seconds - spent
        if left <= 0:
            tally.fail(Outcome.TIMED_OUT, f"case {number}: the item's {item_seconds:g} seconds are over")
            break
        bounded = replace(limits, wall_seconds=min(limits.wall_seconds, left))
        run = await sandbox.run(replace(program, stdin=stdin), bounded)
        spent += run.seconds
        await tally.add(number, run, expected)
        if tally.outcome is Outcome.INFRASTRUCTURE or (tally.outcome is not Outcome.RIGHT and not tests.is_partial):
            break
    return _to_judgement(tally, tests, spent, sandbox.is_isolated)


def _to_judgement(tally: _Tally, tests: PreparedStdio, seconds: float, is_isolated: bool) -> Judgement:
    num_cases = len(tests.cases)
    reward: float | None = float(tally.num_passed == num_cases)
    if tests.is_partial:
        reward = tally.num_passed / num_cases
    if tally.outcome is Outcome.INFRASTRUCTURE:
        reward = None
    reason = tally.reason and f"{tally.reason} ({tally.num_passed} of {num_cases} cases passed)"
    return Judgement(reward, tally.outcome, reason, tests.rule, seconds, tally.cpu_seconds, is_isolated)
