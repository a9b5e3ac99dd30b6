"""Processes for code of the user's own: a call that loops, grows or crashes takes one of them with it, and no more."""

import asyncio
import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, ParamSpec, TypeVar, cast

from shared.errors import describe
from shared.plugins.child import MAX_MESSAGE_BYTES, receive, send

P = ParamSpec("P")
T = TypeVar("T")

_SECRETS = frozenset({"IBTPO_TOKEN", "IBTPO_TOKEN_FILE", "REDIS_URL"})
_MAX_OUTPUT_BYTES = 64 << 10
"""Of what one process prints; the rest would fill a terminal, or a disk."""
_END_SECONDS = 0.2
"""How long a process may take to end when its channel is closed, or it ends by itself."""
_START_SECONDS = 60.0
"""How long a process may take to begin and to import what it is to call."""


class OwnCodeFailed(Exception):
    """Code of the user's own raised, took too long or brought its process down; says which, in one line."""


class OwnProcesses:
    """At most `size` processes, started when they are needed; each call has one for itself, and at most `seconds`.

    Functions and arguments travel by pickle, so that the code must be importable here and there.
    """

    def __init__(self, seconds: float, size: int = 1) -> None:
        self.seconds = seconds
        self._size = size
        self._threads: ThreadPoolExecutor | None = None
        self._all = [_Process() for _ in range(size)]
        self._free: queue.LifoQueue[_Process] = queue.LifoQueue()
        for process in self._all:
            self._free.put(process)

    def call(self, function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        """What the function returns; OwnCodeFailed if it does not."""
        process = self._free.get()
        try:
            return process.call(self.seconds, function, arguments)  # type: ignore[return-value]
        finally:
            self._free.put(process)

    async def run(self, function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
        """As `call`, while the event loop goes on."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._size, "own-code")
        work = partial(self.call, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Ends the processes, also amid calls."""
        for process in self._all:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


class _Process:
    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def call(self, seconds: float, function: Callable[..., object], arguments: tuple[object, ...]) -> object:
        try:
            request = pickle.dumps((function, arguments))
        except Exception as error:  # pickle raises several sorts
            raise OwnCodeFailed(f"it cannot be sent to another process: {describe(error)}") from error
        channel = self._channel
        if channel is None:
            channel = self._begin()
            self._exchange(channel, pickle.dumps((_import, (function, arguments))), _START_SECONDS, "to be imported")
        reply = self._exchange(channel, request, seconds)
        try:
            is_value, value = pickle.loads(reply)  # noqa: S301 - of a process of ours, which runs permitted code
        except Exception as error:  # so does pickle, and so may the classes of what it makes
            raise OwnCodeFailed(f"what it returned cannot be read: {describe(error)}") from error
        if not is_value:
            raise OwnCodeFailed(value)
        return value

    def _exchange(self, channel: socket.socket, request: bytes, seconds: float, purpose: str = "") -> bytes:
        """The reply to a request. OwnCodeFailed unless all of it is here in time: a process that sends little by little
        has no more."""
        until = time.monotonic() + seconds
        try:
            channel.settimeout(min(seconds, threading.TIMEOUT_MAX))  # for the whole of what is sent
            send(channel, request)
            reply = receive(channel, until, MAX_MESSAGE_BYTES)
        except TimeoutError:
            self.kill()
            raise OwnCodeFailed(f"it took longer than {seconds:g} s {purpose}".rstrip()) from None
        except ValueError as error:
            self.kill()
            raise OwnCodeFailed(str(error)) from None
        except OSError:
            reply = None
        if reply is None:
            raise OwnCodeFailed(f"it ended its process ({self.kill()})")
        return reply

    def kill(self) -> str:
        """Ends it, if it runs; the next call starts another. Returns how it ended."""
        process, channel, self._process, self._channel = self._process, self._channel, None, None
        if channel is not None:
            channel.close()
        if process is None:
            return "not started"
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until and not _has_ended(process.pid):
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has forked; its number is its own until then
        code = process.wait()
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "ibtpo.run_module", "shared.plugins", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )
        threading.Thread(
            target=_pass_on, args=(cast(IO[bytes], self._process.stderr),), name="own-output", daemon=True
        ).start()
        self._channel = ours
        with contextlib.suppress(OSError):  # then the first exchange says how it ended
            receive(ours, time.monotonic() + _START_SECONDS)
        return ours


def _pass_on(output: IO[bytes]) -> None:
    """What a process prints, to where this one's errors go: the first `_MAX_OUTPUT_BYTES` of it."""
    left = _MAX_OUTPUT_BYTES
    with output, contextlib.suppress(OSError, ValueError):
        while part := os.read(output.fileno(), 1 << 16):
            if left > 0:
                end = b"" if len(part) < left else b"\n[what code of your own prints beyond this is left out]\n"
                os.write(2, part[:left] + end)
            left -= len(part)


def _has_ended(process_id: int) -> bool:
    return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _import(*_: object) -> None:
    """To read what it is given is to import it."""
