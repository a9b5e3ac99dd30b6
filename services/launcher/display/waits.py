"""What a run waits for, since when, and what helps: in the live view, in lines, in `ibtpo status`."""

import time
from collections.abc import Iterator

from services.launcher.display.durations import format_duration, format_progress
from shared.protocol.replica import ReplicaState
from shared.protocol.status import RunState, RunStatus
from shared.protocol.waiting import Waiting

ENDED = (RunState.FINISHED, RunState.STOPPED, RunState.FAILED)
SHORT_SECONDS = 2.0
"""What takes no longer is not said."""
LONG_SECONDS = 30.0
"""What has not moved for so long is said with its remedy."""
SILENT_SECONDS = 10.0
"""A learner writes its status every second."""


class Pace:
    """When a line about something that goes on is due: after 5 seconds, then more and more rarely."""

    def __init__(self) -> None:
        self._what, self._began, self._said = "", 0.0, 0.0

    def is_due(self, what: str) -> bool:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._said = what, now, now
        waited = now - self._began
        pause = 5.0 if waited < 30.0 else 15.0 if waited < 300.0 else 60.0
        if not what or now - self._said < pause:
            return False
        self._said = now
        return True


def describe_waiting(waiting: Waiting, now: float) -> str:
    """`evaluation at step 0: 12 of 64 problems, for 0:34, about 1:10 left`."""
    waited = now - waiting.since
    parts = [format_progress(waiting.done, waiting.total, waiting.unit)] if waiting.done is not None else []
    parts.append(f"for {format_duration(waited)}")
    idle = now - waiting.moved
    if idle >= LONG_SECONDS and waiting.moved > waiting.since:
        parts.append(f"the last {format_duration(idle)} ago")
    elif waiting.eta_seconds is not None and waiting.eta_seconds >= 1.0 and idle < SILENT_SECONDS:
        parts.append(f"about {format_duration(waiting.eta_seconds)} left")
    return f"{waiting.what}: {', '.join(parts)}"


def wait_lines(status: RunStatus, now: float | None = None) -> Iterator[str]:
    """What is being waited for, why nothing comes, and what helps where that takes long; nothing while all goes on.

    `now`: when the status is looked at, where its learner's clock is this machine's.
    """
    silent = 0.0 if now is None else now - status.time
    if now is not None and status.time and silent >= SILENT_SECONDS and status.state not in ENDED:
        yield f"the learner has not answered for {format_duration(silent)}; what it said last:"
    waiting, said = status.waiting_for, status.message
    is_shown = waiting is not None and status.time - waiting.since >= SHORT_SECONDS
    if waiting is None or not is_shown:
        if said:
            yield said
        elif status.state not in ENDED and not _serves(status):
            yield "no replica serves yet"
        return
    verb = "stop requested, waits for" if status.state is RunState.STOPPING else "waits for"
    yield f"{verb} {describe_waiting(waiting, status.time)}"
    if waiting.detail:
        yield waiting.detail
    if said and said != waiting.detail:
        yield said
    if waiting.remedy and status.time - waiting.moved >= LONG_SECONDS:
        yield waiting.remedy


def _serves(status: RunStatus) -> bool:
    return any(replica.state is ReplicaState.SERVING for replica in status.replicas)
