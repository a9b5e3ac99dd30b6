"""A call that takes too long is ended, and nothing that comes after it is hit."""

import math
import threading
import time

import pytest

from shared.plugins import deadline
from shared.plugins.deadline import NO_HURRY, Deadline


def loop() -> None:
    while True:
        math.sqrt(2.0)


def loop_and_catch(left: list[int]) -> None:
    while left:
        try:
            loop()
        except BaseException:
            left.pop()


def num_threads() -> int:
    return sum(thread.name == "deadline" for thread in threading.enumerate())


def test_a_call_in_time_returns_its_value() -> None:
    assert Deadline(10.0).call(divmod, 7, 2) == (3, 1)
    assert NO_HURRY.call(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_what_a_call_raises_is_raised(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("why")

    with pytest.raises(error, match="why"):
        Deadline(10.0).call(fail)


def test_a_loop_is_ended() -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.05 s"):
        Deadline(0.05).call(loop)
    assert not num_threads()


def test_a_loop_that_catches_everything_is_told_again() -> None:
    left = [1, 2, 3]
    with pytest.raises(TimeoutError):
        Deadline(0.02).call(loop_and_catch, left)
    assert not left
    assert not num_threads()


def test_nothing_is_raised_once_a_call_has_ended() -> None:
    """Calls that end about when their time does: the exception strikes in their thread or nowhere."""
    for _ in range(100):
        try:
            Deadline(0.0005).call(time.sleep, 0.0004)
        except TimeoutError:
            continue
    assert not num_threads()


def test_a_call_that_cannot_be_ended_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_GRACE_SECONDS", 0.1)
    may_end = threading.Event()
    with pytest.raises(TimeoutError):
        Deadline(0.02).call(may_end.wait, 20.0)
    assert num_threads() == 1
    may_end.set()
