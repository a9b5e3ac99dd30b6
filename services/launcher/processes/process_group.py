"""Ends processes together with all that they started; each leads its process group."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence

POLL_SECONDS = 0.05


def is_alive(leader: int) -> bool:
    """Whether the process is there (one that ended but was not waited for counts)."""
    try:
        os.kill(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ask_to_end(leader: int) -> None:
    """SIGTERM to the leader alone: it may still need what it started in order to end well."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, signal.SIGTERM)


def kill(group: int) -> None:
    """SIGKILL to every process of the group; nothing when there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def end(groups: Sequence[int], grace_seconds: float) -> tuple[int, ...]:
    """Asks the leaders to end and waits at most `grace_seconds`; kills whatever is left of their groups.

    Returns the groups whose leader did not end by itself.
    """
    for group in groups:
        ask_to_end(group)
    deadline = time.monotonic() + grace_seconds
    while (left := tuple(group for group in groups if is_alive(group))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for group in groups:
        kill(group)
    return left
