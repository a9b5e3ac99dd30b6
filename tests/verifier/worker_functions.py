"""Functions that workers of the tests run."""

import os
import time
from typing import Any


def double(value: int) -> int:
    return 2 * value


def misbehave(how: str) -> Any:
    """What a hostile answer may make a function do."""
    if how == "hang":
        while True:
            pass
    if how == "sleep":
        time.sleep(60)
    if how == "eat":
        return len(bytearray(4 << 30))
    if how == "die":
        os._exit(9)
    if how == "raise":
        raise ValueError("no such thing")
    if how == "no_json":
        return object()
    return how


def nap(seconds: float) -> None:
    time.sleep(seconds)


def read_environment() -> dict[str, str]:
    return dict(os.environ)


def reward_length(response: str, answer_key: dict[str, Any]) -> float | None:
    """A custom reward: 1 at a length, half of it below, none without a length."""
    if "length" not in answer_key:
        return None
    if answer_key["length"] == "fail":
        raise RuntimeError("cannot")
    if answer_key["length"] == "hang":
        time.sleep(60)
    if answer_key["length"] == "two":
        return 2.0
    return 1.0 if len(response) >= answer_key["length"] else 0.5


def work_for(seconds: float) -> bool:
    """Uses a processor for so long."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
    return True
