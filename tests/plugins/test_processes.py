"""Code of the user's own in another process: it loops, grows, crashes or lies, and nothing but its call fails."""

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shared.plugins import OwnCodeFailed, OwnProcesses
from tests.waiting import wait_until

HERE = r" \(test_processes\.py:\d+\)"


@pytest.fixture(scope="module")
def processes() -> Iterator[OwnProcesses]:
    with closing(OwnProcesses(30.0)) as found:
        yield found


def loop() -> None:
    while True:
        try:
            time.sleep(0.001)
        except BaseException:
            continue


def grow() -> int:
    return len(bytearray(64 << 30))


def say() -> str:
    print("to the log, and not into the answer")
    return os.environ.get("IBTPO_TOKEN", "")


def fail(error: type[BaseException]) -> None:
    raise error("why\nnot")


def dribble() -> None:
    """Writes an answer of 100 bytes where the channel is, a byte at a time."""
    (channel,) = (int(name) for name in os.listdir("/proc/self/fd") if "socket" in link_of(name))
    os.write(channel, struct.pack("<Q", 100))
    while True:
        os.write(channel, b".")
        time.sleep(0.02)


def link_of(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


class Unreadable:
    def __reduce__(self) -> Any:
        return fail, (ValueError,)


BAD: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "raises": (fail, (ZeroDivisionError,), rf"^ZeroDivisionError: why not{HERE}$"),
    "exits": (fail, (SystemExit,), rf"^SystemExit: why not{HERE}$"),
    "interrupts": (fail, (KeyboardInterrupt,), rf"^KeyboardInterrupt: why not{HERE}$"),
    "ends its process": (os._exit, (3,), r"^it ended its process \(exit code 3\)$"),
    "crashes": (os.abort, (), r"^it ended its process \(signal 6\)$"),
    "takes all memory": (grow, (), "^MemoryError"),
    "returns too much": (bytes, (257 << 20,), r"^it returned 269,48\d,\d{3} bytes, and 268,435,456 are the most$"),
    "returns what cannot be read": (Unreadable, (), "^what it returned cannot be read: ValueError: why not"),
    "cannot be sent": (lambda: None, (), "^it cannot be sent to another process"),
}


def test_a_call_returns_its_value(processes: OwnProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBTPO_TOKEN", "secret")
    assert processes.call(divmod, 7, 2) == (3, 1)
    with closing(OwnProcesses(30.0)) as others:
        assert others.call(say) == "", "it does not see the service's secrets"
    assert len(processes.call(bytes, 5 << 20)) == 5 << 20


def flood() -> int:
    return sum(len(f"line {number}\n") for number in range(200_000) if print(f"line {number}") is None)


def test_what_code_prints_is_shown_up_to_a_bound(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(OwnProcesses(30.0)) as processes:
        assert processes.call(flood) > 1 << 20
    shown = ""

    def is_complete() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return shown.endswith("beyond this is left out]\n")

    wait_until(is_complete)
    assert shown.startswith("line 0\nline 1\n")
    assert len(shown) < 70_000


@pytest.mark.parametrize("how", BAD)
def test_a_bad_call_fails_alone(processes: OwnProcesses, how: str) -> None:
    function, arguments, reason = BAD[how]
    with pytest.raises(OwnCodeFailed, match=reason):
        processes.call(function, *arguments)
    assert processes.call(divmod, 7, 2) == (3, 1)


def test_a_call_that_never_ends_is_ended() -> None:
    with closing(OwnProcesses(0.3)) as hasty:
        for function, arguments in ((loop, ()), (time.sleep, (1e6,)), (pow, (10, 10**9)), (dribble, ())):
            with pytest.raises(OwnCodeFailed, match=r"^it took longer than 0\.3 s$"):
                hasty.call(function, *arguments)  # type: ignore[operator]


def fork() -> int:
    """Leaves a process behind that sleeps; returns its number."""
    return os.fork() or time.sleep(1e6) or 0  # type: ignore[func-returns-value]


def test_what_a_call_forks_ends_with_its_process() -> None:
    with closing(OwnProcesses(30.0)) as processes:
        left_behind = processes.call(fork)
        assert is_running(left_behind)
    wait_until(lambda: not is_running(left_behind))


def is_running(process_id: int) -> bool:
    try:
        return not Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return False


async def test_the_event_loop_goes_on_during_a_call(processes: OwnProcesses) -> None:
    started = time.monotonic()
    calls = [processes.run(pow, 2, 10), processes.run(divmod, 7, 2)]
    assert [await one for one in calls] == [1024, (3, 1)]
    assert time.monotonic() - started < 30.0
