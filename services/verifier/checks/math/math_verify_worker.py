"""The processes that run math-verify: a template that has imported it, and the workers forked from it.

A worker's answer may hang, grow or crash: it is limited in memory and ended from outside. It reads and writes one
JSON line per question on its socket and shares nothing with anyone.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

READY = b"R"
_PR_SET_PDEATHSIG = 1
_QUESTIONS_PER_CACHE = 200
_POINTS = 2


def serve_template(control: socket.socket, memory_bytes: int) -> None:
    """Imports math-verify once; forks a worker for every socket that comes over `control`, until it is closed."""
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    compare = _comparer()
    control.sendall(READY)
    while True:
        byte, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not byte:
            return
        with socket.socket(fileno=descriptors[0]) as channel:
            if os.fork() == 0:
                control.close()
                _die_with_parent()
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                serve_worker(channel, compare)
                os._exit(0)


def serve_worker(channel: socket.socket, compare: Callable[[str, str], bool]) -> None:
    """Says its pid, then answers questions until the channel is closed."""
    with channel.makefile("rwb") as stream:
        _write(stream, {"pid": os.getpid()})
        for number, line in enumerate(stream, 1):
            question = json.loads(line)
            _write(stream, _answer(compare, question["gold"], question["answer"]))
            if number % _QUESTIONS_PER_CACHE == 0:
                _clear_sympy_cache()


def _answer(compare: Callable[[str, str], bool], gold: str, answer: str) -> dict[str, Any]:
    start = time.process_time()
    failure = ""
    is_same = False
    try:
        is_same = compare(gold, answer)
    except MemoryError:
        failure = "memory"
    except Exception as error:  # noqa: BLE001 - whatever a parser or a simplifier raises, the answer is not shown equal
        failure = type(error).__name__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"same": is_same, "failure": failure, "cpu_seconds": time.process_time() - start, "peak_bytes": peak}


def _write(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _clear_sympy_cache() -> None:
    from sympy.core.cache import clear_cache

    clear_cache()


def _comparer() -> Callable[[str, str], bool]:
    """math-verify's comparison, imported here so that only these processes carry sympy."""
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr

    logging.disable(logging.CRITICAL)
    latex = [LatexExtractionConfig()]

    def read(text: str) -> list[Any]:
        # without its own timeouts: they are signals, and this process is ended from outside
        return list(parse(f"${text}$", latex, fallback_mode="no_fallback", parsing_timeout=None))

    def compare(gold: str, answer: str) -> bool:
        owed, given = read(gold), read(answer)
        if not owed or not given or not verify(owed[0], given[0], timeout_seconds=None):
            return False
        both = owed[0], given[0]
        return _agree(*both) if all(isinstance(form, Expr) for form in both) else True

    return compare


def _agree(gold: Any, answer: Any) -> bool:
    """Whether two expressions agree to 40 digits where math-verify, rounding to 15, calls them equal."""
    difference = gold - answer
    random = Random(0)  # the same points each time: a verdict does not depend on chance
    for _ in range(_POINTS):
        point = {symbol: random.randrange(1, 10**6) for symbol in difference.free_symbols}
        scale = abs(gold.subs(point).evalf(60)) + abs(answer.subs(point).evalf(60))
        left = abs(difference.subs(point).evalf(60, maxn=400))
        if scale.is_number and left.is_number and bool(left > scale * 10**-40):
            return False
    return True


if __name__ == "__main__":
    serve_template(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
