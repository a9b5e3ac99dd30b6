"""Decides why a process ended, from what the kernel reports and what the service did."""

import os
import signal

from services.verifier.sandbox.messages import EXIT_MEMORY, READY_SEAL, ProcessEnded
from services.verifier.sandbox.sandbox import EndReason, Limits, ProgramRun
from services.verifier.sandbox.service_side.job_files import JobFiles

# A SIGKILL by the kernel for want of memory: the process had used at least this share of its limit.
_OOM_SHARE = 0.8
# The kernel's limit is in whole seconds; a program that ended by itself may have used this much more than its own.
_CPU_SLACK_SECONDS = 0.5
_CLOCK_ERROR_SECONDS = 0.1
_REASON_OF_SIGNAL = {
    signal.SIGSYS: EndReason.VIOLATION,
    signal.SIGXCPU: EndReason.TIMED_OUT,
    signal.SIGXFSZ: EndReason.OUTPUT_LIMIT,
}


def read_run(
    ended: ProcessEnded, seconds: float, killed_for: EndReason | None, files: JobFiles, limits: Limits
) -> ProgramRun:
    """The finished run. LOST if the process never got to its program, or if somebody else killed it.

    `killed_for` is why the service killed the process, None if it did not.
    """
    code = os.waitstatus_to_exitcode(ended.status)
    stdout, stderr = files.read_output(limits.output_bytes), files.read_errors()
    reason = killed_for
    # A process that was to be stopped may have ended by itself just before.
    if reason is None or (reason is EndReason.STOPPED and code != -signal.SIGKILL):
        reason = _find_reason(code, ended, limits)
    if reason is EndReason.EXITED and max(len(stdout), files.count_error_bytes()) >= limits.output_bytes:
        reason = EndReason.OUTPUT_LIMIT
    if not files.is_sealed(READY_SEAL) and reason is not EndReason.STOPPED:
        reason = EndReason.LOST
    return ProgramRun(
        reason,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        stdout=stdout,
        stderr=stderr,
        seconds=seconds,
        cpu_seconds=ended.cpu_seconds,
        peak_memory_bytes=ended.peak_memory_bytes,
    )


def _find_reason(code: int, ended: ProcessEnded, limits: Limits) -> EndReason:
    is_killed = code == -signal.SIGKILL
    used_up = limits.whole_cpu_seconds - _CLOCK_ERROR_SECONDS if is_killed else limits.cpu_seconds + _CPU_SLACK_SECONDS
    if ended.cpu_seconds >= used_up:
        return EndReason.TIMED_OUT
    if code == EXIT_MEMORY:
        return EndReason.OUT_OF_MEMORY
    if code >= 0:
        return EndReason.EXITED
    if is_killed:
        is_oom = ended.peak_memory_bytes >= _OOM_SHARE * limits.memory_bytes
        return EndReason.OUT_OF_MEMORY if is_oom else EndReason.LOST
    return _REASON_OF_SIGNAL.get(signal.Signals(-code), EndReason.CRASHED)
