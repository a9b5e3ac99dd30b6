"""Which outcome a process's end has, and why."""

from services.verifier.sandbox.sandbox import EndReason, ProgramRun
from shared.protocol.verdict import Outcome

_OUTCOME_OF_ENDING = {
    EndReason.TIMED_OUT: Outcome.TIMED_OUT,
    EndReason.OUT_OF_MEMORY: Outcome.MEMORY,
    EndReason.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
    EndReason.VIOLATION: Outcome.SANDBOX_VIOLATION,
    EndReason.LOST: Outcome.INFRASTRUCTURE,
}
_MAX_REASON = 300
_MAX_READ = 4_096


def outcome_of(run: ProgramRun) -> Outcome | None:
    """The outcome of a process that failed; None if it ended normally."""
    if run.is_clean:
        return None
    return _OUTCOME_OF_ENDING.get(run.end_reason, Outcome.RUNTIME_ERROR)


def reason_of(run: ProgramRun) -> str:
    """How the process ended, and its last line of stderr."""
    lines = run.stderr[-_MAX_READ:].decode("utf-8", "replace").strip().splitlines()
    last_line = f": {lines[-1].strip()}" if lines else ""
    if run.signal is not None:
        how = f"{run.end_reason.value} (signal {run.signal})"
    elif run.exit_code:
        how = f"{run.end_reason.value} with code {run.exit_code}"
    else:
        how = run.end_reason.value
    return shorten(f"the program {how.replace('_', ' ')}{last_line}")


def shorten(reason: str) -> str:
    return " ".join(reason[:_MAX_READ].split())[:_MAX_REASON]
