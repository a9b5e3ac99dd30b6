"""The work of a child process: runs a script, serves a solution, runs a judge or executes an interpreter."""

import _sitebuiltins
import atexit
import builtins
import contextlib
import gc
import importlib
import io
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn, cast

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.judge_runner import run_judge
from services.verifier.sandbox.jail.child.solution_server import serve_solution
from services.verifier.sandbox.messages import EXIT_MEMORY
from services.verifier.sandbox.sandbox import Role

_EXIT_ERROR = 1

_JOB, _CHANNEL = 3, 4
_BUFFER_BYTES = 1 << 16
_FILE_NAME = "<solution>"

# What programs import most: a child has these without reading a file.
_COMMON_MODULES = (
    "abc array ast base64 bisect cmath collections.abc copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq inspect io itertools json math numbers operator queue random re statistics string struct textwrap "
    "time typing"
)


def preload() -> None:
    """Prepares the fork-server's interpreter for its children, who inherit it."""
    for name in _COMMON_MODULES.split():
        importlib.import_module(name)
    # `site` is off, since it would run what is installed; programs know these names from it.
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    _open_standard_streams()
    sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix)]


def run_role(role: int) -> NoReturn:
    code = _EXIT_ERROR
    try:
        argv, source = _read_job()
        if b"random" in source:
            random.seed()  # else all children would share the fork-server's state
        if role != Role.COMMAND:
            os.close(_JOB)
        if role == Role.SCRIPT:
            code = _run_script(argv, source)
        elif role == Role.SOLUTION:
            code = _run_solution(source)
        elif role == Role.COMMAND:
            _execute_command(argv, len(source))
        else:
            code = run_judge(source, JudgeChannel(_CHANNEL))
    finally:
        os._exit(code)


def _read_job() -> tuple[list[str], bytes]:
    """The arguments and the source. A job's first line holds the arguments, each with a null byte after it."""
    size = os.fstat(_JOB).st_size
    arguments, _, source = os.pread(_JOB, size, 0).partition(b"\n")
    return arguments.decode().split("\0")[:-1], source


def _open_standard_streams() -> None:
    """Opens streams over descriptors 0..2 once, before any fork; a child has its own files behind these numbers."""
    sys.stdin = sys.__stdin__ = _text_stream(0, "r", "surrogateescape")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text_stream(1, "w", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_stream(2, "w", "backslashreplace")  # type: ignore[misc]


def _text_stream(descriptor: int, mode: str, errors: str) -> "io.TextIOWrapper[Any]":
    stream = open(descriptor, mode, _BUFFER_BYTES, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - as long as the process
    return cast("io.TextIOWrapper[Any]", stream)


def _make_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module


def _run_script(argv: list[str], source: bytes) -> int:
    module = _make_module("__main__")
    sys.argv = ["solution.py", *argv]
    code = _run_to_exit_code(lambda: _execute(source, module))
    # As the interpreter does before it ends.
    exit_hooks_code = _run_to_exit_code(_run_exit_hooks)
    _flush()
    # Files that the program left open are flushed when they are collected.
    module.__dict__.clear()
    gc.collect()
    _flush()
    return code or exit_hooks_code


def _run_exit_hooks() -> None:
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]


def _run_solution(source: bytes) -> int:
    module = _make_module("solution")

    def load_and_serve() -> None:
        _execute(source, module)
        serve_solution(module.__dict__, JudgeChannel(_CHANNEL))

    code = _run_to_exit_code(load_and_serve)
    _flush()
    return code


def _execute_command(argv: list[str], source_bytes: int) -> None:
    """Becomes the interpreter, which finds the source at the offset of descriptor 3."""
    os.lseek(_JOB, -source_bytes, os.SEEK_END)
    os.set_inheritable(_JOB, True)
    os.execve(argv[0], argv, dict(os.environ))  # noqa: S606 - the filter and Landlock decide what this may be


def _execute(source: bytes, module: types.ModuleType) -> None:
    text = source.decode().removeprefix("\ufeff")
    code = compile(text, _FILE_NAME, "exec", dont_inherit=True, optimize=0)
    exec(code, module.__dict__)  # noqa: S102 - the purpose


def _run_to_exit_code(work: Callable[[], None]) -> int:
    """Runs `work`; the exit code that an interpreter would end with."""
    try:
        work()
    except SystemExit as end:
        return _exit_code(end.code)
    except MemoryError:
        return EXIT_MEMORY
    except BaseException:  # noqa: BLE001 - any exception ends the program, as in an interpreter
        with contextlib.suppress(BaseException):
            traceback.print_exc(limit=-8)
        return _EXIT_ERROR
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return _EXIT_ERROR
