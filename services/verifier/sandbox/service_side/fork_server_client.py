"""The service's side of one fork-server: launches jobs in it and hears how they ended."""

import array
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from services.verifier.sandbox.jail.jail import JailOptions
from services.verifier.sandbox.messages import (
    MAX_MESSAGE_BYTES,
    ForkFailed,
    LaunchRequest,
    ProcessEnded,
    ProcessStarted,
    Ready,
    Reply,
    unpack_reply,
)

_ROOT = Path(__file__).resolve().parents[4]
_ONE_DESCRIPTOR = socket.CMSG_LEN(array.array("i").itemsize)


# One order of sets for all runs and restarts: equal answers get equal verdicts.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}


class ForkServerGone(Exception):
    """The fork-server ended, or had to be ended; what happened to its jobs is unknown."""


@dataclass(slots=True)
class Job:
    """A launched process, as far as it is known."""

    started: asyncio.Future[int]
    """Its pidfd, owned by whoever awaits it."""
    ended: asyncio.Future[ProcessEnded] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ForkServerOptions:
    """How a fork-server is started: its interpreter, how many processes at once, what more they may read and execute.

    A healthy one answers within milliseconds; after `answer_seconds` it counts as stuck and is ended.
    """

    interpreter: str = sys.executable
    max_processes: int = 4
    uses_namespaces: bool = True
    readable: Sequence[str] = ()
    executable: Sequence[str] = ()
    answer_seconds: float = 10.0

    def command(self, control: int) -> list[str]:
        boot = (
            f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from services.verifier.sandbox import fork_server; "
            "fork_server.main()"
        )
        jail = JailOptions(self.max_processes, self.uses_namespaces, self.readable, self.executable)
        options = {"control": control, "jail": asdict(jail)}
        return [self.interpreter, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", boot, json.dumps(options)]


class ForkServerClient:
    """One living fork-server."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        layers: Mapping[str, str],
        answer_seconds: float,
    ) -> None:
        self.layers = layers
        self._answer_seconds = answer_seconds
        self.pid = process.pid
        self._process = process
        self._control = control
        self._jobs: dict[int, Job] = {}
        self._next_id = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._read)

    @classmethod
    async def start(cls, options: ForkServerOptions) -> "ForkServerClient":
        """Starts one and waits until it is ready. Raises ForkServerGone when it does not get there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own code; returns at once
                options.command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
            )
        try:
            async with asyncio.timeout(options.answer_seconds):
                data = await asyncio.get_running_loop().sock_recv(ours, MAX_MESSAGE_BYTES)
            hello = unpack_reply(data) if data else None
        except BaseException:
            _end(process, ours)
            raise
        if not isinstance(hello, Ready):
            raise ForkServerGone(f"the fork-server did not start: {_end(process, ours)}")
        return cls(process, ours, hello.layers, options.answer_seconds)

    @property
    def is_alive(self) -> bool:
        return self._control.fileno() >= 0

    def launch(self, launch_fields: LaunchRequest, descriptors: Sequence[int]) -> Job:
        """Sends the job off. Its futures fail with ForkServerGone when the fork-server goes."""
        if not self.is_alive:
            raise ForkServerGone("the fork-server is gone")
        job = Job(self._loop.create_future(), self._loop.create_future())
        self._jobs[launch_fields.job_id] = job
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._control.sendmsg([launch_fields.pack()], rights)
        except OSError as error:
            self.close(f"it takes no message: {error}")
        return job

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def answer(self, future: asyncio.Future[Any]) -> None:
        """Waits for an answer that is due at once; ends the fork-server when it does not come."""
        done, _ = await asyncio.wait([future], timeout=self._answer_seconds)
        if not done:
            self.close("it did not answer")

    def close(self, reason: str) -> None:
        """Ends the fork-server and with it all its children; fails every job."""
        if self.is_alive:
            self._loop.remove_reader(self._control.fileno())
            _end(self._process, self._control)
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            for future in (job.started, job.ended):
                if not future.done():
                    future.set_exception(ForkServerGone(reason))
                    future.exception()  # either may have nobody waiting

    def _read(self) -> None:
        while self.is_alive:
            try:
                data, ancillary, _, _ = self._control.recvmsg(MAX_MESSAGE_BYTES, _ONE_DESCRIPTOR)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"the fork-server's socket failed: {error}")
                return
            if not data:
                self.close("the fork-server ended")
                return
            descriptors = array.array("i")
            for _, _, passed in ancillary:
                descriptors.frombytes(passed)
            self._hear(unpack_reply(data), list(descriptors))

    def _hear(self, reply: Reply, descriptors: list[int]) -> None:
        match reply:
            case ProcessStarted(job_id) if (job := self._jobs.get(job_id)) and not job.started.done():
                job.started.set_result(descriptors.pop())
            case ProcessEnded(job_id) if job := self._jobs.pop(job_id, None):
                if not job.ended.done():
                    job.ended.set_result(reply)
            case ForkFailed(job_id, error_number) if job := self._jobs.pop(job_id, None):
                gone = ForkServerGone(f"no process could be made: {os.strerror(error_number)}")
                for future in (job.started, job.ended):
                    future.set_exception(gone)
                    future.exception()
        for descriptor in descriptors:
            os.close(descriptor)


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> str:
    """Kills and reaps the process; returns what it said last."""
    control.close()
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    # SIGKILL: this wait is short, but its pipe may be held by a child for a moment longer.
    process.wait()
    with cast("BinaryIO", process.stderr) as pipe:
        os.set_blocking(pipe.fileno(), False)
        said = pipe.read() or b""
    return said.decode(errors="replace")[-2000:]
