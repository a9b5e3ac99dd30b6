"""What runs in the worker processes: a template that has imported the function, and the workers forked from it.

A call may hang, grow or crash: a worker's memory is limited, and the service kills it from outside. A worker reads
and writes one JSON line per call on its socket. Started as `python -m`, without the service.
"""

import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

READY = b"R"
_PR_SET_PDEATHSIG = 1
# Workers use what the service leaves of the processors, so that it answers others at once.
_NICENESS = 5

# Returns what JSON can hold.
Function = Callable[..., Any]


def serve_template(control: socket.socket, memory_bytes: int, function: Function) -> None:
    """Forks a worker for every socket received over `control`, until that is closed."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    control.sendall(READY)
    while True:
        byte, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not byte:
            return
        with socket.socket(fileno=descriptors[0]) as channel:
            if os.fork() == 0:
                control.close()
                _confine(memory_bytes)
                serve_worker(channel, function)
                os._exit(0)


def serve_worker(channel: socket.socket, function: Function) -> None:
    """Sends its pid, then answers calls until the channel is closed."""
    with channel.makefile("rwb") as stream:
        _write(stream, {"pid": os.getpid()})
        for line in stream:
            _write(stream, _call(function, json.loads(line)))


def _confine(memory_bytes: int) -> None:
    die_with_parent()
    os.nice(_NICENESS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _call(function: Function, arguments: list[Any]) -> dict[str, Any]:
    start = time.process_time()
    failure, value = "", None
    try:
        value = function(*arguments)
        json.dumps(value)
    except MemoryError:
        failure = "memory"
    except Exception as error:  # noqa: BLE001 - whatever it raises is reported
        failure, value = f"{type(error).__name__}: {error}"[:200], None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"value": value, "failure": failure, "cpu_seconds": time.process_time() - start, "peak_bytes": peak}


def _write(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def die_with_parent() -> None:
    """Asks the kernel for it, where there is a Linux to ask."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def load_function(target: str) -> Function:
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{target} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve_template(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), load_function(sys.argv[3]))
