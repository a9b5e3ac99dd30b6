"""What runs in a process for code of the user's own: answers calls, one after the other, until it is killed."""

import contextlib
import ctypes
import faulthandler
import math
import os
import pickle
import resource
import signal
import socket
import struct
import threading
import time
from typing import Any

from shared.errors import describe

MAX_MEMORY_BYTES = 4 << 30
MAX_MESSAGE_BYTES = 256 << 20
"""Of one answer: a service reads no more than that into its memory."""
_PR_SET_PDEATHSIG = 1
_HEAD = struct.Struct("<Q")
_SHORTEST_SECONDS = 0.001
"""A timeout of 0 would ask not to wait at all."""


def serve(descriptor: int) -> None:
    """Answers calls on this socket. Nobody else writes to it: a `print` of the code that is called goes to stderr."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(2, 1)
    faulthandler.enable(2)  # a crash in C code says there where it was
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # an OSError: the service has ended, or waits no longer
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as channel:
        send(channel, b"")
        while (request := receive(channel)) is not None:
            send(channel, _answer(request))


def send(channel: socket.socket, body: bytes) -> None:
    channel.sendall(_HEAD.pack(len(body)) + body)


def receive(channel: socket.socket, until: float = math.inf, most: int | None = None) -> bytes | None:
    """The next message; None when the other side has ended. TimeoutError unless all of it is here by `until`, of
    time.monotonic; ValueError for one of more bytes than `most`."""
    head = _read(channel, _HEAD.size, until)
    if head is None:
        return None
    (count,) = _HEAD.unpack(head)
    if most is not None and count > most:
        raise ValueError(f"it returned {count:,} bytes, and {most:,} are the most")
    return _read(channel, count, until)


def _read(channel: socket.socket, count: int, until: float) -> bytes | None:
    parts = []
    while count:
        if until < math.inf:
            left = until - time.monotonic()
            channel.settimeout(min(max(left, _SHORTEST_SECONDS), threading.TIMEOUT_MAX))
        part = channel.recv(min(count, 1 << 20))
        if not part:
            return None
        if time.monotonic() > until:
            raise TimeoutError("not all of it came in time")
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
        return pickle.dumps((False, describe(error)))
