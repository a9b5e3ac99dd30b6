"""Reads how a process ended from what the kernel and the fork-server tell of it."""

import os
import signal
from dataclasses import dataclass

from services.verifier.sandbox.jail.ceilings import whole_cpu_seconds
from services.verifier.sandbox.jail.jail import MARK
from services.verifier.sandbox.messages import Ended
from services.verifier.sandbox.sandbox import EXIT_MEMORY, Ending, Limits, Run
from services.verifier.sandbox.service_side.files_in_memory import JobFiles

# A process that the kernel took for want of memory had most of what it was allowed.
_SHARE_OF_A_VICTIM = 0.8
# The kernel's limit is in whole seconds; a program that ended by itself a little over its own is let off.
_CPU_SLACK_SECONDS = 0.5
_CLOCK_ERROR_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Watched:
    """What the service saw: how long the process ran, and whether it ended it itself, and why."""

    seconds: float
    by_us: Ending | None


def conclude(ended: Ended, watched: Watched, files: JobFiles, limits: Limits) -> Run:
    """The finished run. LOST when the process never got to its program, or something else killed it."""
    code = os.waitstatus_to_exitcode(ended.status)
    stdout, stderr = files.output(limits.output_bytes), files.errors()
    # A stopped process may have been ending by itself: then that is its end.
    ended_itself = watched.by_us is Ending.STOPPED and code != -signal.SIGKILL
    ending = _ending(code, ended, limits) if watched.by_us is None or ended_itself else watched.by_us
    if ending is Ending.EXITED and max(len(stdout), files.error_bytes()) >= limits.output_bytes:
        ending = Ending.OUTPUT_LIMIT
    if not files.bears(MARK) and ending is not Ending.STOPPED:
        ending = Ending.LOST
    return Run(
        ending,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        stdout=stdout,
        stderr=stderr,
        seconds=watched.seconds,
        cpu_seconds=ended.cpu_seconds,
        peak_memory_bytes=ended.peak_memory_bytes,
    )


def _ending(code: int, ended: Ended, limits: Limits) -> Ending:
    used_up = whole_cpu_seconds(limits.cpu_seconds) - _CLOCK_ERROR_SECONDS
    if ended.cpu_seconds >= (used_up if code == -signal.SIGKILL else limits.cpu_seconds + _CPU_SLACK_SECONDS):
        return Ending.TIMED_OUT
    if code == EXIT_MEMORY:
        return Ending.OUT_OF_MEMORY
    if code >= 0:
        return Ending.EXITED
    if -code == signal.SIGKILL:
        is_victim = ended.peak_memory_bytes >= _SHARE_OF_A_VICTIM * limits.memory_bytes
        return Ending.OUT_OF_MEMORY if is_victim else Ending.LOST
    known = {signal.SIGSYS: Ending.VIOLATION, signal.SIGXCPU: Ending.TIMED_OUT, signal.SIGXFSZ: Ending.OUTPUT_LIMIT}
    return known.get(signal.Signals(-code), Ending.CRASHED)
