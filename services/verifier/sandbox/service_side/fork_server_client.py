"""One fork-server, as the service sees it: started, asked for processes, killed when it fails."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from services.verifier.sandbox.messages import (
    MAX_MESSAGE_BYTES,
    ForkFailed,
    ForkServerMessage,
    JailOptions,
    LaunchRequest,
    ProcessEnded,
    ProcessStarted,
    Ready,
    unpack_message,
)
from services.verifier.sandbox.sandbox import Limits
from services.verifier.sandbox.service_side.process_runner import RunningProcess

_REPOSITORY = Path(__file__).resolve().parents[4]
_BOOT = (
    f"import sys; sys.path.insert(0, {str(_REPOSITORY)!r}); from services.verifier.sandbox import fork_server; "
    "fork_server.main()"
)
# Sets have one order in all runs and after all restarts: equal answers get equal verdicts.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LD_BIND_NOW": "1"}


class ForkServerGone(Exception):
    """The fork-server ended or was killed; what its jobs did is unknown."""


@dataclass(slots=True)
class _Job:
    """A process that was asked for. `started` gives its pidfd, which then belongs to the caller."""

    started: asyncio.Future[int]
    ended: asyncio.Future[ProcessEnded]

    def fail(self, reason: str) -> None:
        for future in (self.started, self.ended):
            if not future.done():
                future.set_exception(ForkServerGone(reason))
                future.exception()  # perhaps nobody awaits it


class ForkServerClient:
    """A running fork-server. Made by `start`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        layers: Mapping[str, str],
        answer_seconds: float,
    ) -> None:
        self.layers = layers
        self.pid = process.pid
        self._answer_seconds = answer_seconds
        self._process = process
        self._control = control
        self._jobs: dict[int, _Job] = {}
        self._num_jobs = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._read)

    @classmethod
    async def start(cls, options: JailOptions, interpreter: str, answer_seconds: float) -> "ForkServerClient":
        """Starts one and waits until it is ready. Raises ForkServerGone if it fails or is late."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            arguments = ["-P", "-s", "-S", "-B", "-X", "utf8", "-c", _BOOT, str(theirs.fileno()), options.to_json()]
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own code; returns at once
                [interpreter, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
            )
        seconds = answer_seconds * (1 + len(options.packages))  # which it imports first
        try:
            async with asyncio.timeout(seconds):
                data = await asyncio.get_running_loop().sock_recv(ours, MAX_MESSAGE_BYTES)
            ready = unpack_message(data) if data else None
        except TimeoutError:
            errors = _kill(process, ours)
            raise ForkServerGone(f"the fork-server was not ready after {seconds:g} s: {errors}") from None
        except BaseException:
            _kill(process, ours)
            raise
        if not isinstance(ready, Ready):
            raise ForkServerGone(f"the fork-server did not start: {_kill(process, ours)}")
        return cls(process, ours, ready.layers, answer_seconds)

    @property
    def is_alive(self) -> bool:
        return self._control.fileno() >= 0

    async def start_process(self, role: int, user_index: int, limits: Limits, descriptors: list[int]) -> RunningProcess:
        """Starts a jailed process. It and its end raise ForkServerGone when the fork-server goes."""
        if not self.is_alive:
            raise ForkServerGone("the fork-server is gone")
        self._num_jobs += 1
        job = self._jobs[self._num_jobs] = _Job(self._loop.create_future(), self._loop.create_future())
        request = LaunchRequest(self._num_jobs, role, user_index, limits.for_kernel)
        try:
            socket.send_fds(self._control, [request.pack()], descriptors)
        except OSError as error:
            self.close(f"it takes no message: {error}")
        await self._wait_for_answer(job.started)
        return RunningProcess(job.started.result(), job.ended)

    async def wait_for_end(self, process: RunningProcess) -> ProcessEnded:
        """How the process ended; raises ForkServerGone if the fork-server does not report it soon."""
        await self._wait_for_answer(process.ended)
        return process.ended.result()

    def close(self, reason: str) -> None:
        """Kills the fork-server and with it all its children; fails every job."""
        if self.is_alive:
            self._loop.remove_reader(self._control.fileno())
            _kill(self._process, self._control)
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.fail(reason)

    async def _wait_for_answer(self, future: asyncio.Future[Any]) -> None:
        """Waits for an answer that is due at once; kills the fork-server if it does not come."""
        done, _ = await asyncio.wait([future], timeout=self._answer_seconds)
        if not done:
            self.close("it did not answer")

    def _read(self) -> None:
        while self.is_alive:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"the fork-server's socket failed: {error}")
                return
            if not data:
                self.close("the fork-server ended")
                return
            self._handle(unpack_message(data), descriptors)

    def _handle(self, message: ForkServerMessage, descriptors: list[int]) -> None:
        match message:
            case ProcessStarted(job_id) if (job := self._jobs.get(job_id)) and not job.started.done():
                job.started.set_result(descriptors.pop())
            case ProcessEnded(job_id) if job := self._jobs.pop(job_id, None):
                if not job.ended.done():
                    job.ended.set_result(message)
            case ForkFailed(job_id, error_number) if job := self._jobs.pop(job_id, None):
                job.fail(f"no process could be made: {os.strerror(error_number)}")
        for descriptor in descriptors:
            os.close(descriptor)


def _kill(process: subprocess.Popen[bytes], control: socket.socket) -> str:
    """Kills and reaps the fork-server; returns the end of its standard error."""
    control.close()
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
    with cast("BinaryIO", process.stderr) as pipe:
        # A dying child may hold the pipe open a moment longer.
        os.set_blocking(pipe.fileno(), False)
        errors = pipe.read() or b""
    return errors.decode(errors="replace")[-2000:]
