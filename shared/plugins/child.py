"""What runs in a process for code of the user's own: answers calls, one after the other, until it is killed."""

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import socket
import struct
from typing import Any

MAX_MEMORY_BYTES = 4 << 30
_PR_SET_PDEATHSIG = 1
_MAX_REASON = 500


def serve(descriptor: int) -> None:
    """Answers calls on this socket. Nobody else writes to it: a `print` of the code that is called goes to stderr."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # an OSError: the service has ended, or waits no longer
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as channel:
        send(channel, b"")
        while (request := receive(channel)) is not None:
            send(channel, _answer(request))


def send(channel: socket.socket, body: bytes) -> None:
    channel.sendall(struct.pack("<Q", len(body)) + body)


def receive(channel: socket.socket) -> bytes | None:
    """The next message; None when the other side has ended."""
    head = _read(channel, 8)
    return None if head is None else _read(channel, struct.unpack("<Q", head)[0])


def _read(channel: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        part = channel.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _answer(request: bytes) -> bytes:
    """(True, what the function returned), or (False, why it did not)."""
    answer: tuple[bool, Any]
    try:
        function, arguments = pickle.loads(request)  # noqa: S301 - of the process that started this one
        answer = True, function(*arguments)
        return pickle.dumps(answer)
    except BaseException as error:  # noqa: BLE001 - a stranger's code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return pickle.dumps((False, reason[:_MAX_REASON]))
