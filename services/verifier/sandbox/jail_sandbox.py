"""The sandbox: jailed children of a fork-server that is started again whenever it goes."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from services.verifier.sandbox.jail.resource_limits import round_up_cpu_seconds
from services.verifier.sandbox.messages import LaunchRequest
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun
from services.verifier.sandbox.self_test import find_gap
from services.verifier.sandbox.service_side.finished_run import Watched, conclude
from services.verifier.sandbox.service_side.fork_server_client import (
    ForkServerClient,
    ForkServerGone,
    ForkServerOptions,
    Job,
)
from services.verifier.sandbox.service_side.index_pool import IndexPool
from services.verifier.sandbox.service_side.job_files import JobFiles
from services.verifier.sandbox.service_side.starved_time import starved_seconds
from shared.errors import Unavailable

_MAX_ATTEMPTS = 4
# A clock is not prolonged by less.
_SHORTEST_WAIT_SECONDS = 0.02

Stop = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Part:
    """A program and the index of the jail user it runs as."""

    program: Program
    user_index: int


@asynccontextmanager
async def open_jail(options: ForkServerOptions) -> AsyncIterator["JailSandbox"]:
    """A sandbox, tested through its own jail; `refusal` tells what is missing. Leaving kills what still runs."""
    sandbox = JailSandbox(options)
    try:
        await sandbox.test_itself()
        yield sandbox
    finally:
        sandbox.close()


class JailSandbox:
    """Runs programs in the jail. Made by `open_jail`."""

    def __init__(self, options: ForkServerOptions) -> None:
        self._options = options
        self._places = IndexPool(options.max_processes // 2)
        self._server: ForkServerClient | None = None
        self._starting = asyncio.Lock()
        self._layers: Mapping[str, str] = {}
        self._refusal: str | None = "it has not been tested"
        self._is_closed = False
        self.num_starts = 0

    @property
    def is_isolated(self) -> bool:
        return True

    @property
    def refusal(self) -> str | None:
        return self._refusal

    @property
    def concurrency(self) -> int:
        return self._options.max_processes // 2

    @property
    def fork_server_pid(self) -> int | None:
        return self._server.pid if self._server is not None and self._server.is_alive else None

    def layers(self) -> Mapping[str, str]:
        return dict(self._layers)

    async def test_itself(self) -> None:
        """Tries, as model code would, what the jail must not allow; sets `refusal`."""
        self._refusal = await find_gap(self._run, self.layers)

    async def run(self, program: Program, limits: Limits) -> ProgramRun:
        """Runs one program. Raises Unavailable when the self-test found a gap."""
        self._check()
        return await self._run(program, limits)

    async def run_pair(self, solution: Program, judge: Program, limits: Limits) -> tuple[ProgramRun, ProgramRun]:
        """Runs a solution until its judge is done. Raises Unavailable when the self-test found a gap."""
        self._check()
        async with self._places.one() as place:
            runs = await self._to_the_end((_Part(solution, 2 * place), _Part(judge, 2 * place + 1)), limits)
            return runs[0], runs[1]

    def close(self) -> None:
        """Kills everything that runs here, for good."""
        self._is_closed = True
        if self._server is not None:
            self._server.close("the sandbox was closed")

    def _check(self) -> None:
        if self._refusal is not None:
            raise Unavailable(f"code cannot be run here: {self._refusal}")

    async def _run(self, program: Program, limits: Limits) -> ProgramRun:
        async with self._places.one() as place:
            return (await self._to_the_end((_Part(program, 2 * place),), limits))[0]

    async def _to_the_end(self, parts: Sequence[_Part], limits: Limits) -> list[ProgramRun]:
        """Runs the parts; when cancelled, stops them and does not return before they are gone."""
        stop: Stop = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(self._run_parts(parts, limits, stop))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set_result(None)
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            raise

    async def _run_parts(self, parts: Sequence[_Part], limits: Limits, stop: Stop) -> list[ProgramRun]:
        """Tries again, from the start, when the fork-server goes or something outside kills a part."""
        runs = [ProgramRun.lost("it did not start")] * len(parts)
        for _ in range(_MAX_ATTEMPTS):
            try:
                server = await self._living_server()
                runs = await _run_once(server, parts, limits, stop)
            except (ForkServerGone, OSError) as gone:
                runs = [ProgramRun.lost(str(gone))] * len(parts)
            if stop.done() or self._is_closed or all(run.end_reason is not EndReason.LOST for run in runs):
                break
        return runs

    async def _living_server(self) -> ForkServerClient:
        async with self._starting:
            if self._is_closed:
                raise ForkServerGone("the sandbox was closed")
            if self._server is None or not self._server.is_alive:
                server = await ForkServerClient.start(self._options)
                if self._layers and server.layers != self._layers:
                    server.close("its layers changed")
                    raise ForkServerGone(f"a restarted fork-server has other layers: {server.layers}")
                self._server, self._layers = server, server.layers
                self.num_starts += 1
            return self._server


async def _run_once(server: ForkServerClient, parts: Sequence[_Part], limits: Limits, stop: Stop) -> list[ProgramRun]:
    """Runs a program, or a solution and its judge; the solution is stopped when the judge is done."""
    if len(parts) == 1:
        return [await _watch(server, parts[0], limits, None, stop)]
    ends = socket.socketpair()
    solution_stop: Stop = asyncio.get_running_loop().create_future()
    solution = asyncio.create_task(_watch(server, parts[0], limits, ends[0], solution_stop))
    # The judge waits for the solution; whose patience is its own.
    longest = replace(limits, wall_seconds=limits.wall_seconds + limits.starved_seconds, starved_seconds=0.0)
    try:
        judged = await _watch(server, parts[1], longest, ends[1], stop)
    finally:
        solution_stop.set_result(None)
        await asyncio.wait([solution])
        solution.exception()
    return [solution.result(), judged]


async def _watch(
    server: ForkServerClient, part: _Part, limits: Limits, channel: socket.socket | None, stop: Stop
) -> ProgramRun:
    """Launches one process and follows it to its end, which comes at the latest when its time is over."""
    files = JobFiles.of(part.program, channel)
    try:
        job = server.launch(_launch(server.new_id(), part, limits), files.descriptors())
        await server.answer(job.started)
        pidfd = job.started.result()
        files.close_passed()
        try:
            watched = await _follow(job, pidfd, limits, stop)
            await server.answer(job.ended)
        finally:
            os.close(pidfd)
        return conclude(job.ended.result(), watched, files, limits)
    finally:
        files.close()


async def _follow(job: Job, pidfd: int, limits: Limits, stop: Stop) -> Watched:
    """Waits for the end, or brings it about."""
    started = now = time.monotonic()
    due = started + limits.wall_seconds
    futures: list[asyncio.Future[Any]] = [job.ended, stop]
    while due - now > _SHORTEST_WAIT_SECONDS:
        done, _ = await asyncio.wait(futures, timeout=due - now, return_when=asyncio.FIRST_COMPLETED)
        now = time.monotonic()
        if done:
            break
        due = started + limits.wall_seconds + min(limits.starved_seconds, starved_seconds(pidfd))
    by_us = None
    if not job.ended.done():
        by_us = EndReason.STOPPED if stop.done() else EndReason.TIMED_OUT
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return Watched(now - started, by_us)


def _launch(job_id: int, part: _Part, limits: Limits) -> LaunchRequest:
    return LaunchRequest(
        job_id,
        part.program.role,
        part.user_index,
        round_up_cpu_seconds(limits.cpu_seconds),
        limits.memory_bytes,
        limits.output_bytes,
        limits.num_threads,
    )
