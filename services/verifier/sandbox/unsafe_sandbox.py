"""No sandbox: ordinary processes of the service's own user. For trying things out, never for training."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from services.verifier.sandbox.jail.resource_limits import round_up_cpu_seconds
from services.verifier.sandbox.messages import ProcessEnded
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun
from services.verifier.sandbox.service_side.finished_run import Watched, conclude
from services.verifier.sandbox.service_side.index_pool import IndexPool
from services.verifier.sandbox.service_side.job_files import JobFiles

_ROOT = Path(__file__).resolve().parents[3]
_BOOT = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n"
    "from services.verifier.sandbox.jail.child import unjailed\n"
    "unjailed.main()"
)
_NUM_PROCESSES = 4096


class UnsafeSandbox:
    """Runs programs in processes that can do whatever the service can, within time, memory and output limits."""

    def __init__(self, concurrency: int) -> None:
        self._places = IndexPool(concurrency)
        self._num_places = concurrency

    @property
    def is_isolated(self) -> bool:
        return False

    @property
    def refusal(self) -> str | None:
        return None

    @property
    def concurrency(self) -> int:
        return self._num_places

    def layers(self) -> Mapping[str, str]:
        return {"isolation": "none: switched off by the operator"}

    async def run(self, program: Program, limits: Limits) -> ProgramRun:
        async with self._places.one():
            return await _watch(program, limits, None)

    async def run_pair(self, solution: Program, judge: Program, limits: Limits) -> tuple[ProgramRun, ProgramRun]:
        async with self._places.one():
            ends = socket.socketpair()
            solving = asyncio.create_task(_watch(solution, limits, ends[0]))
            try:
                judged = await _watch(judge, limits, ends[1])
            except BaseException:
                solving.cancel()
                await asyncio.wait([solving])
                raise
            # The judge is gone: the solution reads the end of the channel, or its time ends it.
            return await solving, judged


async def _watch(program: Program, limits: Limits, channel: socket.socket | None) -> ProgramRun:
    files = JobFiles.of(program, channel)
    try:
        process = _start(program, limits, files)
        files.close_passed()
        pidfd = os.pidfd_open(process.pid)
        try:
            watched = await _follow(pidfd, limits.wall_seconds)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            status, usage = _reap(process)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return conclude(ProcessEnded(0, status, cpu_seconds, usage.ru_maxrss * 1024), watched, files, limits)
    finally:
        files.close()


def _start(program: Program, limits: Limits, files: JobFiles) -> "subprocess.Popen[bytes]":
    passed = files.descriptors()[3:]
    options = {
        "role": program.role,
        "descriptors": passed,
        "cpu_seconds": round_up_cpu_seconds(limits.cpu_seconds),
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
        "num_processes": _NUM_PROCESSES,
    }
    return subprocess.Popen(  # noqa: S603 - the operator asked for it
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, json.dumps(options)],
        stdin=files.stdin,
        stdout=files.stdout,
        stderr=files.stderr,
        pass_fds=passed,
        env={},
        cwd="/",
    )


async def _follow(pidfd: int, wall_seconds: float) -> Watched:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, ended)
    started = time.monotonic()
    try:
        await asyncio.wait([ended], timeout=wall_seconds)
    finally:
        loop.remove_reader(pidfd)
    return Watched(time.monotonic() - started, None if ended.done() else EndReason.TIMED_OUT)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _reap(process: "subprocess.Popen[bytes]") -> tuple[int, resource.struct_rusage]:
    """The dead process's status and usage, which `Popen.wait` would not tell."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return status, usage
