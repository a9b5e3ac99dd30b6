"""Runs a program in a process, or a solution beside its judge, to its end or its deadline, and says why it ended."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from services.verifier.sandbox.messages import EXIT_MEMORY, READY_SEAL, ProcessEnded
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun
from services.verifier.sandbox.service_side.job_files import JobFiles
from services.verifier.sandbox.service_side.lanes import Place

# A deadline is not extended by less.
_SHORTEST_EXTENSION_SECONDS = 0.02
# The end of a solution should be known as its own, so its judge, which waits for it, has longer.
_JUDGE_SECONDS = 1.0
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

Stop = asyncio.Future[None]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process and its end. Whoever holds it closes the pidfd."""

    pidfd: int
    ended: asyncio.Future[ProcessEnded]


class ProcessStarter(Protocol):
    """Starts child processes, in a jail or without one."""

    async def start_process(self, role: int, user_index: int, limits: Limits, descriptors: list[int]) -> RunningProcess:
        """Starts a process with these as its descriptors 0, 1, 2, …"""
        ...

    async def wait_for_end(self, process: RunningProcess) -> ProcessEnded:
        """How a process ended that has ended, or was just killed."""
        ...


async def run_programs(
    starter: ProcessStarter, programs: Sequence[Program], first_user: int, limits: Limits, place: Place, stop: Stop
) -> list[ProgramRun]:
    """Runs a program, or a solution and its judge; kills the solution when the judge ends, all when `stop` is set."""
    if len(programs) == 1:
        return [await _run_process(starter, programs[0], first_user, None, limits, place, stop)]
    solution_end, judge_end = socket.socketpair()
    solution_stop: Stop = asyncio.get_running_loop().create_future()
    solution = asyncio.create_task(
        _run_process(starter, programs[0], first_user, solution_end, limits, place, solution_stop)
    )
    longer = replace(limits, wall_seconds=limits.wall_seconds + _JUDGE_SECONDS)
    try:
        # who share files must be one user: SQLite, for one, makes files that only their owner writes
        judge_user = first_user if limits.file_bytes else first_user + 1
        judge_run = await _run_process(starter, programs[1], judge_user, judge_end, longer, place, stop)
    finally:
        solution_stop.set_result(None)
        await asyncio.wait([solution])
        solution.exception()
    return [solution.result(), judge_run]


async def stop_when_cancelled(work: Callable[[Stop], Awaitable[_Result]]) -> _Result:
    """Awaits the work. When cancelled, sets its stop, and returns only when the work has."""
    stop: Stop = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(work(stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set_result(None)
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


async def _run_process(
    starter: ProcessStarter,
    program: Program,
    user_index: int,
    channel: socket.socket | None,
    limits: Limits,
    place: Place,
    stop: Stop,
) -> ProgramRun:
    files = JobFiles(program, channel)
    try:
        process = await starter.start_process(program.role, user_index, limits, files.descriptors())
        place.add(process.pidfd)
        try:
            files.close_channel()
            killed_for, seconds = await _wait_or_kill(process, limits, place, stop)
            ended = await starter.wait_for_end(process)
        finally:
            place.remove(process.pidfd)
            os.close(process.pidfd)
        return read_run(ended, seconds, killed_for, files, limits)
    finally:
        files.close()


async def _wait_or_kill(
    process: RunningProcess, limits: Limits, place: Place, stop: Stop
) -> tuple[EndReason | None, float]:
    """Waits for the end of the process, or kills it: returns why, and the seconds that count.

    Time for which the machine or the slow lane gave it no processor does not.
    """
    started = now = time.monotonic()
    deadline = started + limits.wall_seconds
    futures: list[asyncio.Future[Any]] = [process.ended, stop]
    while deadline - now > _SHORTEST_EXTENSION_SECONDS:
        done, _ = await asyncio.wait(futures, timeout=deadline - now, return_when=asyncio.FIRST_COMPLETED)
        now = time.monotonic()
        if done:
            break
        place.measure()
        deadline = started + limits.wall_seconds + place.forgiven_seconds
    seconds = max(0.0, now - started - place.forgiven_seconds)
    if process.ended.done():
        return None, seconds
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
    return (EndReason.STOPPED if stop.done() else EndReason.TIMED_OUT), seconds


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
