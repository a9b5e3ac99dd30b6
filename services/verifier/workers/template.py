"""The service's handles: of the template process that has imported a function, and of the workers forked from it."""

import asyncio
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from services.verifier.workers import child_process
from shared.errors import Unavailable

_START_SECONDS = 60.0
_FORK_SECONDS = 10.0
_LONGEST_LINE = 4 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """The function's value, or its `failure`."""

    value: Any
    failure: str
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """How long a process had a processor, and how long it waited for one that others had."""

    used_seconds: float
    waited_seconds: float

    def since(self, earlier: "ProcessorTimes") -> "ProcessorTimes":
        return ProcessorTimes(self.used_seconds - earlier.used_seconds, self.waited_seconds - earlier.waited_seconds)


class Worker:
    """One worker process. Signals go to its pid descriptor, so they never reach another process."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.num_calls = 0
        self._pidfd = os.pidfd_open(pid)
        self._reader = reader
        self._writer = writer

    async def call(self, arguments: Sequence[Any]) -> WorkerReply:
        """Raises EOFError or ConnectionError if the worker dies."""
        self._writer.write(to_json(arguments) + b"\n")
        await self._writer.drain()
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the worker died")
        self.num_calls += 1
        return WorkerReply(**json.loads(line))

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; its pid descriptor becomes readable when it ends."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def times(self) -> "ProcessorTimes":
        """Zeros if it has ended. Where the kernel does not say how long it waited, that is 0."""
        try:
            used, waited, _ = Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()
            return ProcessorTimes(int(used) / 1e9, int(waited) / 1e9)
        except (OSError, ValueError):
            pass
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return ProcessorTimes(0.0, 0.0)
        return ProcessorTimes((int(fields[11]) + int(fields[12])) / _TICKS, 0.0)

    def kill(self) -> None:
        """Ends the process at once; harmless if it has ended."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
            self._writer.transport.abort()


class WorkerTemplate:
    """Starts with the first fork, and again after `stop`. `target` is `package.module:function`."""

    def __init__(self, target: str, memory_bytes: int) -> None:
        self._target = target
        self._memory_bytes = memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def fork(self) -> Worker:
        """A new worker. Raises OSError, EOFError or Unavailable if the template has ended or hangs."""
        control = self._control or await self._start()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(control, [b"F"], [theirs.fileno()])
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        except OSError:
            ours.close()
            raise
        try:
            async with asyncio.timeout(_FORK_SECONDS):
                greeting = await reader.readline()
            if not greeting:
                raise EOFError("the template died")
            return Worker(int(json.loads(greeting)["pid"]), reader, writer)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the template of {self._target} forked no worker in {_FORK_SECONDS:g} s") from error
            raise

    async def _start(self) -> socket.socket:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "ibtpo.run_module", child_process.__name__),
                *(str(theirs.fileno()), str(self._memory_bytes), self._target),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={  # the import path of this process, and none of its secrets
                    "PATH": os.environ.get("PATH", ""),
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                message = await asyncio.get_running_loop().sock_recv(self._control, 1)
        except TimeoutError as error:
            raise Unavailable(f"{self._target} was not imported in {_START_SECONDS:g} s") from error
        if message != child_process.READY:
            raise Unavailable(f"{self._target} cannot be imported; the error is in this service's output")
        return self._control

    async def stop(self) -> None:
        """Ends the template; its workers end with it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None
