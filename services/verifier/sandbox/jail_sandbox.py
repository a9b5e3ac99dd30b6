"""The sandbox: runs programs in jailed children of a fork-server, which it restarts whenever that goes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun, Sandbox
from services.verifier.sandbox.self_test import find_gap
from services.verifier.sandbox.service_side.fork_server_client import ForkServerClient, ForkServerGone
from services.verifier.sandbox.service_side.process_runner import Stop, run_programs, stop_when_cancelled
from shared.errors import Unavailable

_MAX_ATTEMPTS = 4


@asynccontextmanager
async def open_jail(
    options: JailOptions, *, interpreter: str = sys.executable, answer_seconds: float = 10.0
) -> AsyncIterator["JailSandbox"]:
    """A sandbox that has tested its own jail; `refusal` says what is missing. Leaving kills what still runs.

    A healthy fork-server answers within milliseconds; after `answer_seconds` it is killed and replaced.
    """
    sandbox = JailSandbox(options, interpreter, answer_seconds)
    try:
        await sandbox.test_itself()
        yield sandbox
    finally:
        sandbox.close()


class JailSandbox(Sandbox):
    """Runs programs in the jail. Made by `open_jail`."""

    is_isolated = True

    def __init__(self, options: JailOptions, interpreter: str, answer_seconds: float) -> None:
        self.concurrency = options.concurrency
        self.refusal = "it has not been tested"
        self.layers = {}
        self.num_starts = 0
        self._options = options
        self._interpreter = interpreter
        self._answer_seconds = answer_seconds
        self._may_run = asyncio.Semaphore(options.concurrency)
        self._free_users = list(range(0, options.max_processes, 2))
        self._server: ForkServerClient | None = None
        self._starting = asyncio.Lock()
        self._is_closed = False

    @property
    def fork_server_pid(self) -> int | None:
        return self._server.pid if self._server is not None and self._server.is_alive else None

    async def test_itself(self) -> None:
        """Tries, as model code would, what the jail must not allow; sets `refusal`."""

        async def run(program: Program, limits: Limits) -> ProgramRun:
            return (await self._run((program,), limits))[0]

        self.refusal = await find_gap(run, lambda: self.layers, self._options.packages)

    async def run_together(self, programs: Sequence[Program], limits: Limits) -> list[ProgramRun]:
        if self.refusal is not None:
            raise Unavailable(f"code cannot be run here: {self.refusal}")
        return await self._run(programs, limits)

    def close(self) -> None:
        """Kills everything that runs here, for good."""
        self._is_closed = True
        if self._server is not None:
            self._server.close("the sandbox was closed")

    async def _run(self, programs: Sequence[Program], limits: Limits) -> list[ProgramRun]:
        async with self._may_run:
            first_user = self._free_users.pop()
            try:
                return await stop_when_cancelled(
                    lambda stop: self._run_with_retries(programs, first_user, limits, stop)
                )
            finally:
                self._free_users.append(first_user)

    async def _run_with_retries(
        self, programs: Sequence[Program], first_user: int, limits: Limits, stop: Stop
    ) -> list[ProgramRun]:
        """Starts all of them again when the fork-server goes or somebody else kills one of them."""
        runs = [ProgramRun.lost("it did not start")] * len(programs)
        for _ in range(_MAX_ATTEMPTS):
            try:
                server = await self._start_server()
                runs = await run_programs(server, programs, first_user, limits, stop)
            except (ForkServerGone, OSError) as error:
                runs = [ProgramRun.lost(str(error))] * len(programs)
            if stop.done() or self._is_closed or all(run.end_reason is not EndReason.LOST for run in runs):
                break
        return runs

    async def _start_server(self) -> ForkServerClient:
        """The running fork-server; starts one if there is none."""
        async with self._starting:
            if self._is_closed:
                raise ForkServerGone("the sandbox was closed")
            if self._server is None or not self._server.is_alive:
                server = await ForkServerClient.start(self._options, self._interpreter, self._answer_seconds)
                if self.layers and server.layers != self.layers:
                    server.close("its layers changed")
                    raise ForkServerGone(f"a restarted fork-server has other layers: {server.layers}")
                self._server, self.layers = server, server.layers
                self.num_starts += 1
            return self._server
