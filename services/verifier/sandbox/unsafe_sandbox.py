"""No sandbox: runs programs in ordinary processes of the service's user. For trying things out, never for training."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from services.verifier.sandbox.messages import ProcessEnded
from services.verifier.sandbox.sandbox import Limits, Program, ProgramRun, Sandbox
from services.verifier.sandbox.service_side.lanes import Lanes
from services.verifier.sandbox.service_side.process_runner import RunningProcess, run_programs, stop_when_cancelled

_REPOSITORY = Path(__file__).resolve().parents[3]
_BOOT = (
    f"import sys; sys.path.insert(0, {str(_REPOSITORY)!r}); from services.verifier.sandbox.jail.child import unjailed; "
    "unjailed.main()"
)


class UnsafeSandbox(Sandbox):
    """Runs programs that can do whatever the service can, within limits of time, memory and output."""

    is_isolated = False
    layers: Mapping[str, str] = {"isolation": "none: switched off by the operator"}

    def __init__(self, concurrency: int, slow_runs: int = 0) -> None:
        self.concurrency = concurrency
        self.slow_runs = slow_runs
        self._lanes = Lanes(concurrency, slow_runs)

    async def run_together(self, programs: Sequence[Program], limits: Limits) -> list[ProgramRun]:
        async with self._lanes.place() as place:
            return await stop_when_cancelled(lambda stop: run_programs(self, programs, 0, limits, place, stop))

    async def start_process(self, role: int, user_index: int, limits: Limits, descriptors: list[int]) -> RunningProcess:
        stdin, stdout, stderr, *others = descriptors
        options = {"role": role, "descriptors": others, "limits": asdict(limits)}
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - the operator asked for it; returns at once
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, json.dumps(options)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=others,
            env={},
            cwd="/",
        )
        loop = asyncio.get_running_loop()
        running = RunningProcess(os.pidfd_open(process.pid), loop.create_future())
        loop.add_reader(running.pidfd, _reap, process, running)
        return running

    async def wait_for_end(self, process: RunningProcess) -> ProcessEnded:
        return await process.ended


def _reap(process: "subprocess.Popen[bytes]", running: RunningProcess) -> None:
    running.ended.get_loop().remove_reader(running.pidfd)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it
    running.ended.set_result(ProcessEnded(0, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024))
