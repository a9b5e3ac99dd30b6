"""How a run stands, as far as its folder tells."""

import json
from dataclasses import dataclass
from enum import StrEnum

from services.launcher.runs.run_dir import RunDirectory

_TAIL_BYTES = 1 << 16
_ENDS = ("run_failed", "cannot_start", "run_stopped", "run_finished")


class FolderState(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """It was asked to, and saved its state."""
    FAILED = "failed"
    """Its learner said why."""
    BROKEN_OFF = "broken off"
    """Nothing says why: it was killed, or is on another machine."""
    NOT_BEGUN = "not begun"


@dataclass(frozen=True, slots=True)
class RunCondition:
    state: FolderState
    reason: str = ""
    """Why it failed."""


def read_condition(run: RunDirectory) -> RunCondition:
    """From the launcher's lock, the summary and the end of the learner's log."""
    if run.is_running():
        return RunCondition(FolderState.RUNNING)
    if run.is_finished:
        return RunCondition(FolderState.FINISHED)
    last = _last_end(run)
    if last.get("event") in ("run_failed", "cannot_start"):
        return RunCondition(FolderState.FAILED, str(last.get("error", "")))
    if last.get("event") == "run_stopped":
        return RunCondition(FolderState.STOPPED)
    return RunCondition(FolderState.BROKEN_OFF if run.has_trained else FolderState.NOT_BEGUN)


def _last_end(run: RunDirectory) -> dict[str, object]:
    """The last event that ended the learner; none after one that says it has begun again."""
    try:
        with run.log("learner").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            if event.get("event") in _ENDS:
                return event
            if event.get("event") in ("step", "lease_acquired"):
                return {}
    return {}
