"""Messages and scripts arrive as they were sent; values that make no sense are refused."""

import pytest

from services.verifier.sandbox.judge_script import JudgeReport, JudgeScript
from services.verifier.sandbox.messages import (
    ForkFailed,
    ForkServerMessage,
    JailOptions,
    LaunchRequest,
    ProcessEnded,
    ProcessStarted,
    Ready,
    pack_message,
    unpack_message,
)
from services.verifier.sandbox.sandbox import Limits, Program, Role


@pytest.mark.parametrize(
    "message",
    [
        Ready({"namespaces": "on", "landlock": "the kernel has none"}),
        ProcessStarted(2**40),
        ProcessEnded(7, 0x8B, 0.25, 1 << 33),
        ForkFailed(7, 11),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_the_fork_server_comes_back(message: ForkServerMessage) -> None:
    assert unpack_message(pack_message(message)) == message


def test_a_request_carries_all_limits() -> None:
    request = LaunchRequest(2**40, Role.JUDGE, 5, Limits(1.5, 2.5, 1 << 33, 1 << 32, 7).for_kernel)
    assert LaunchRequest.unpack(request.pack()) == request


def test_jail_options_come_back_and_count_two_processes_each() -> None:
    options = JailOptions(3, False, ["/a"], ["/usr/bin/node"], ["numpy"], ["/b"], slow_runs=4)
    assert JailOptions.from_json(options.to_json()) == options
    assert options.max_processes == 14


def test_scripts_and_reports_come_back() -> None:
    script = JudgeScript("import math", ("assert f(1)", "x = 'é\ud800'"), "f", calls_check=False, is_partial=True)
    assert JudgeScript.unpack(script.pack()) == script
    report = JudgeReport(3, 2, 9, True, "AssertionError", "no")
    assert JudgeReport.unpack(report.pack()) == report


@pytest.mark.parametrize(
    "limits",
    [
        {"wall_seconds": 0.0},
        {"cpu_seconds": -1.0},
        {"memory_bytes": 0},
        {"output_bytes": 0},
        {"num_threads": 0},
    ],
)
def test_limits_are_above_zero(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="every limit must be above zero"):
        Limits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "whole"), [(0.2, 1), (1.0, 1), (1.2, 2), (10.0, 10)])
def test_the_kernel_counts_whole_seconds(seconds: float, whole: int) -> None:
    assert Limits(cpu_seconds=seconds).whole_cpu_seconds == whole


def test_exactly_commands_have_an_interpreter() -> None:
    with pytest.raises(ValueError, match="exactly COMMAND programs have one"):
        Program(b"", Role.COMMAND)
    with pytest.raises(ValueError, match="exactly COMMAND programs have one"):
        Program(b"", command=("/usr/bin/node",))


@pytest.mark.parametrize("argument", ["a\0b", "a\nb"])
def test_arguments_cannot_break_out_of_their_line(argument: str) -> None:
    with pytest.raises(ValueError, match="no null byte and no new line"):
        Program(b"", argv=(argument,))
