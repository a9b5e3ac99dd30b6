"""What a code item may use, what the end of its processes means, and what is judged without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.check import CodeCheck, open_code_check
from services.verifier.config import CodeConfig
from services.verifier.sandbox.judge_script import JudgeReport
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem
from tests.verifier.code.judging import asserts, judge_code, judge_items, stdio

RIGHT = ProgramRun(EndReason.EXITED, exit_code=0, stdout=b"2\n", seconds=1.0, cpu_seconds=0.5)
WRONG = ProgramRun(EndReason.EXITED, exit_code=0, stdout=b"3\n", seconds=1.0)
TWO = stdio(("1\n", "2\n"))


@dataclass
class RecordedSandbox:
    """Runs nothing: answers with the given runs, and keeps what it was asked."""

    runs: list[ProgramRun] = field(default_factory=lambda: [RIGHT])
    is_isolated: bool = True
    refusal: str | None = None
    concurrency: int = 1
    slow_runs: int = 0
    layers: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[Program, Limits]] = field(default_factory=list)

    async def run(self, program: Program, limits: Limits) -> ProgramRun:
        self.asked.append((program, limits))
        return self.runs[min(len(self.asked), len(self.runs)) - 1]

    async def run_pair(self, solution: Program, judge: Program, limits: Limits) -> tuple[ProgramRun, ProgramRun]:
        self.asked.append((solution, limits))
        solved, judged = self.runs
        return solved, judged


async def _judge(
    sandbox: RecordedSandbox, limits: ItemLimits | None = None, config: CodeConfig | None = None
) -> Judgement:
    item = VerdictItem(id="x", kind="code", response="print(2)", answer_key={"tests": TWO}, limits=limits)
    return (await judge_items(CodeCheck(sandbox, config or CodeConfig()), [item]))[0]


async def test_an_item_without_limits_has_those_of_the_configuration() -> None:
    sandbox = RecordedSandbox()
    config = CodeConfig(wall_seconds=3, cpu_seconds=2, memory_bytes=64 << 20, output_bytes=1000)
    await _judge(sandbox, config=config)
    ((_, limits),) = sandbox.asked
    assert limits == Limits(wall_seconds=3, cpu_seconds=2, memory_bytes=64 << 20, output_bytes=1000)


async def test_an_item_s_limits_replace_those_of_the_configuration() -> None:
    sandbox = RecordedSandbox()
    await _judge(sandbox, ItemLimits(wall_seconds=2, cpu_seconds=1, memory_bytes=1, output_bytes=10))
    ((_, limits),) = sandbox.asked
    assert (limits.wall_seconds, limits.cpu_seconds, limits.output_bytes) == (2, 1, 10)
    assert limits.memory_bytes == 16 << 20, "less than this runs nothing"


async def test_the_last_cases_have_no_more_time_than_the_item_has_left() -> None:
    sandbox = RecordedSandbox()
    config = CodeConfig(item_seconds=2.5, wall_seconds=2)
    judgement = await judge_code(CodeCheck(sandbox, config), "print(2)", stdio(*[("1\n", "2\n")] * 4))
    assert [limits.wall_seconds for _, limits in sandbox.asked] == [2, 1.5, 0.5]
    assert judgement.outcome is Outcome.TIMED_OUT
    assert judgement.reason.startswith("case 4: the item's 2.5 seconds are over (3 of 4 cases passed)")


async def test_the_first_wrong_case_ends_the_item_unless_parts_of_it_count() -> None:
    tests = stdio(*[("1\n", "2\n")] * 4)
    sandbox = RecordedSandbox([RIGHT, WRONG, RIGHT])
    assert (await judge_code(CodeCheck(sandbox, CodeConfig()), "print(2)", tests)).reward == 0.0
    assert len(sandbox.asked) == 2
    sandbox = RecordedSandbox([RIGHT, WRONG, RIGHT])
    judgement = await judge_code(CodeCheck(sandbox, CodeConfig()), "print(2)", tests, partial_credit=True)
    assert (judgement.reward, judgement.outcome, len(sandbox.asked)) == (0.75, Outcome.WRONG, 4)
    assert judgement.cpu_seconds == 1.5


ENDS = {
    "a time-out": (ProgramRun(EndReason.TIMED_OUT), Outcome.TIMED_OUT, "the program timed out"),
    "no memory": (ProgramRun(EndReason.OUT_OF_MEMORY), Outcome.MEMORY, "the program out of memory"),
    "a flood": (ProgramRun(EndReason.OUTPUT_LIMIT), Outcome.OUTPUT_LIMIT, "the program output limit"),
    "a violation": (ProgramRun(EndReason.VIOLATION), Outcome.SANDBOX_VIOLATION, "the program violation"),
    "an error": (
        ProgramRun(EndReason.EXITED, exit_code=1, stderr=b"Traceback\n  line 1\nValueError: no\n"),
        Outcome.RUNTIME_ERROR,
        "the program exited with code 1: ValueError: no",
    ),
    "a signal": (
        ProgramRun(EndReason.CRASHED, signal=11),
        Outcome.RUNTIME_ERROR,
        "the program crashed (signal 11)",
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_the_end_of_a_program_decides_its_outcome(name: str) -> None:
    run, outcome, reason = ENDS[name]
    judgement = await _judge(RecordedSandbox([run]))
    assert (judgement.outcome, judgement.reward) == (outcome, 0.0)
    assert judgement.reason == f"case 1: {reason} (0 of 1 cases passed)"


async def test_a_failure_of_the_sandbox_has_no_reward_even_after_a_wrong_case() -> None:
    sandbox = RecordedSandbox([WRONG, ProgramRun.lost("the fork server ended")])
    judgement = await judge_code(
        CodeCheck(sandbox, CodeConfig()), "print(2)", stdio(*[("1\n", "2\n")] * 3), partial_credit=True
    )
    assert (judgement.reward, judgement.outcome) == (None, Outcome.INFRASTRUCTURE)
    assert "the fork server ended" in judgement.reason
    assert len(sandbox.asked) == 2


DONE = JudgeReport(num_tests=2, num_passed=2, num_answers=2, is_done=True)
PAIRS = {
    "all passed": (RIGHT, DONE, Outcome.RIGHT, 1.0),
    "never called": (RIGHT, JudgeReport(2, 2, 0, True), Outcome.UNSUPPORTED, None),
    "wrong": (RIGHT, JudgeReport(2, 1, 2, True, "AssertionError"), Outcome.WRONG, 0.0),
    "needs its objects": (RIGHT, JudgeReport(2, 1, 2, True, "UnsupportedTest"), Outcome.UNSUPPORTED, None),
    "raises": (RIGHT, JudgeReport(2, 1, 2, True, "KeyError", "'x'"), Outcome.RUNTIME_ERROR, 0.0),
    "leaves its tests": (RIGHT, JudgeReport(2, 1, 2, True, "SolutionGone"), Outcome.RUNTIME_ERROR, 0.0),
    "takes all memory": (
        ProgramRun(EndReason.OUT_OF_MEMORY), JudgeReport(2, 1, 2, True, "SolutionGone"), Outcome.MEMORY, 0.0,
    ),
    "the sandbox fails": (ProgramRun.lost("gone"), DONE, Outcome.INFRASTRUCTURE, None),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
async def test_the_judge_s_report_and_the_solution_s_end_decide_the_outcome(name: str) -> None:
    solved, report, outcome, reward = PAIRS[name]
    judged = ProgramRun(EndReason.EXITED, exit_code=0, stdout=report.pack())
    check = CodeCheck(RecordedSandbox([solved, judged]), CodeConfig())
    judgement = await judge_code(check, "def f(): return 1", asserts("assert f() == 1"))
    assert (judgement.outcome, judgement.reward) == (outcome, reward)


async def test_a_judge_without_a_report_blames_the_tests() -> None:
    judged = ProgramRun(EndReason.EXITED, exit_code=1, stderr=b"SyntaxError: tests\n")
    check = CodeCheck(RecordedSandbox([RIGHT, judged]), CodeConfig())
    judgement = await judge_code(check, "def f(): return 1", asserts("assert f() == 1"))
    assert (judgement.outcome, judgement.reward) == (Outcome.UNSUPPORTED, None)
    assert "SyntaxError: tests" in judgement.reason


async def test_a_program_that_is_too_long_is_not_run() -> None:
    sandbox = RecordedSandbox()
    judgement = await judge_code(CodeCheck(sandbox, CodeConfig()), "#" * 262_145, TWO)
    assert (judgement.outcome, judgement.reward) == (Outcome.RUNTIME_ERROR, 0.0)
    assert not sandbox.asked


async def test_without_isolation_every_verdict_says_so_and_no_javascript_is_run() -> None:
    async with open_code_check(CodeConfig(unsafe=True)) as check:
        judgement = await judge_code(check, "print(int(input()) * 2)", TWO)
        assert check.health()["isolated"] is False
    assert (judgement.outcome, judgement.isolated) == (Outcome.RIGHT, False)
