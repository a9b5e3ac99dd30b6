"""Reads how a process ended from what the kernel and the fork-server tell of it."""

import os
import signal
from dataclasses import dataclass

from services.verifier.sandbox.jail.jail import JAILED_SEAL
from services.verifier.sandbox.jail.resource_limits import round_up_cpu_seconds
from services.verifier.sandbox.messages import ProcessEnded
from services.verifier.sandbox.sandbox import EXIT_MEMORY, EndReason, Limits, ProgramRun
from services.verifier.sandbox.service_side.job_files import JobFiles

# A process that the kernel took for want of memory had most of what it was allowed.
_SHARE_OF_A_VICTIM = 0.8
# The kernel's limit is in whole seconds; a program that ended by itself a little over its own is let off.
_CPU_SLACK_SECONDS = 0.5
_CLOCK_ERROR_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Watched:
    """What the service saw: how long the process ran, and whether it ended it itself, and why."""

    seconds: float
    by_us: EndReason | None


def conclude(ended: ProcessEnded, watched: Watched, files: JobFiles, limits: Limits) -> ProgramRun:
    """The finished run. LOST when the process never got to its program, or something else killed it."""
    code = os.waitstatus_to_exitcode(ended.status)
    stdout, stderr = files.output(limits.output_bytes), files.errors()
    # A stopped process may have been ending by itself: then that is its end.
    ended_itself = watched.by_us is EndReason.STOPPED and code != -signal.SIGKILL
    ending = _ending(code, ended, limits) if watched.by_us is None or ended_itself else watched.by_us
    if ending is EndReason.EXITED and max(len(stdout), files.error_bytes()) >= limits.output_bytes:
        ending = EndReason.OUTPUT_LIMIT
    if not files.has_seal(JAILED_SEAL) and ending is not EndReason.STOPPED:
        ending = EndReason.LOST
    return ProgramRun(
        ending,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        stdout=stdout,
        stderr=stderr,
        seconds=watched.seconds,
        cpu_seconds=ended.cpu_seconds,
        peak_memory_bytes=ended.peak_memory_bytes,
    )


def _ending(code: int, ended: ProcessEnded, limits: Limits) -> EndReason:
    used_up = round_up_cpu_seconds(limits.cpu_seconds) - _CLOCK_ERROR_SECONDS
    if ended.cpu_seconds >= (used_up if code == -signal.SIGKILL else limits.cpu_seconds + _CPU_SLACK_SECONDS):
        return EndReason.TIMED_OUT
    if code == EXIT_MEMORY:
        return EndReason.OUT_OF_MEMORY
    if code >= 0:
        return EndReason.EXITED
    if -code == signal.SIGKILL:
        is_victim = ended.peak_memory_bytes >= _SHARE_OF_A_VICTIM * limits.memory_bytes
        return EndReason.OUT_OF_MEMORY if is_victim else EndReason.LOST
    known = {
        signal.SIGSYS: EndReason.VIOLATION,
        signal.SIGXCPU: EndReason.TIMED_OUT,
        signal.SIGXFSZ: EndReason.OUTPUT_LIMIT,
    }
    return known.get(signal.Signals(-code), EndReason.CRASHED)
