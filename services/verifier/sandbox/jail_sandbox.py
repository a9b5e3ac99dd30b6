"""The sandbox: runs programs in jailed children of a fork-server, which it restarts whenever that goes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun, Sandbox
from services.verifier.sandbox.self_test import find_gap
from services.verifier.sandbox.service_side.fork_server_client import ForkServerClient, ForkServerGone
from services.verifier.sandbox.service_side.lanes import Lanes, Place
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
        self.slow_runs = options.slow_runs
        self._lanes = Lanes(options.concurrency, options.slow_runs)
        self._free_users = list(range(0, options.max_processes, 2))
        self._server: ForkServerClient | None = None
        self._starting = asyncio.Lock()
        self._is_closed = False

    @property
    def fork_server_pid(self) -> int | None:
        return self._server.pid if self._server is not None and self._server.is_alive else None

    @property
    def num_slow(self) -> int:
        return self._lanes.num_slow

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
        """Starts all of them again when the fork-server goes or somebody else kills one of them."""
        runs: list[ProgramRun] = []
        for _ in range(_MAX_ATTEMPTS):
            async with self._lanes.place() as place:
                first_user = self._free_users.pop()
                try:
                    runs = await stop_when_cancelled(
                        lambda stop: self._run_once(programs, first_user, limits, place, stop)  # noqa: B023 - awaited here
                    )
                finally:
                    self._free_users.append(first_user)
            if self._is_closed or all(run.end_reason is not EndReason.LOST for run in runs):
                break
        return runs

    async def _run_once(
        self, programs: Sequence[Program], first_user: int, limits: Limits, place: Place, stop: Stop
    ) -> list[ProgramRun]:
        try:
            server = await self._start_server()
            return await run_programs(server, programs, first_user, limits, place, stop)
        except (ForkServerGone, OSError) as error:
            return [ProgramRun.lost(str(error))] * len(programs)

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
