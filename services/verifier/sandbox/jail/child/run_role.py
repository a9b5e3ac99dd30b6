"""The work of a child process: runs a script, serves a solution, runs a judge or executes an interpreter."""

import atexit
import builtins
import contextlib
import gc
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable, Collection
from functools import partial
from typing import NoReturn

from services.verifier.sandbox.jail.child.judge_channel import JudgeChannel
from services.verifier.sandbox.jail.child.judge_runner import run_judge
from services.verifier.sandbox.jail.child.solution_server import serve_solution
from services.verifier.sandbox.jail.child.usual_names import add_usual_names, names_in
from services.verifier.sandbox.messages import EXIT_MEMORY
from services.verifier.sandbox.sandbox import Role

_EXIT_ERROR = 1

# As numbers: to find a member of an Enum, a child would copy ten pages.
_SCRIPT, _SOLUTION, _COMMAND, _NATIVE = map(int, (Role.SCRIPT, Role.SOLUTION, Role.COMMAND, Role.NATIVE))
_JOB, _CHANNEL = 3, 4
_FILE_NAME = "<solution>"
# Without these words, no garbage does anything when it is collected.
_ENDS_LATE = (b"open", b"io", b"yield", b"__del__")
# It ends where a real one would read; it mentions no usual names, which would become builtins of all.
_WARMING_PROGRAM = b"""
def double(text):
    return [2 * int(word) for word in text.split()]
try:
    text = input()
except EOFError:
    text = '1'
print(double("1 2"), *double(text))
"""
_WARMING_RUNS = 20
# That of contests; a program that calls functions sets its own.
_RECURSION = 50_000


def run_role(role: int) -> NoReturn:
    code = _EXIT_ERROR
    try:
        if role == _NATIVE:
            os.execve(_JOB, ["solution"], dict(os.environ))  # noqa: S606 - the program; the filter says what it may do
        argv, source = _read_job()
        if b"random" in source:
            _seed_randomness()  # else all children would share the fork-server's state
        if role != _COMMAND:
            os.close(_JOB)
        if role == _SCRIPT:
            code = _run_script(argv, source)
        elif role == _SOLUTION:
            code = _run_solution(source)
        elif role == _COMMAND:
            _execute_command(argv, len(source))
        else:
            code = run_judge(source, JudgeChannel(_CHANNEL))
    finally:
        os._exit(code)


def warm_up() -> None:
    """Runs a small program some times, in the fork-server.

    The interpreter then has adapted the code that every child runs, which would write to it, and filled its caches: a
    child copies each page that it writes to.
    """
    main_module = sys.modules["__main__"]
    for _ in range(_WARMING_RUNS):
        _read_job()  # empty here
        module = _make_module("__main__")
        _run_to_exit_code(partial(_execute, _WARMING_PROGRAM, module))
        _flush()
    sys.modules["__main__"] = main_module


def _seed_randomness() -> None:
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def _read_job() -> tuple[list[str], bytes]:
    """The arguments and the source. A job's first line holds the arguments, each with a null byte after it."""
    size = os.fstat(_JOB).st_size
    arguments, _, source = os.pread(_JOB, size, 0).partition(b"\n")
    return arguments.decode().split("\0")[:-1], source


def _make_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module


def _run_script(argv: list[str], source: bytes) -> int:
    module = _make_module("__main__")
    sys.argv = ["solution.py", *argv]
    code = _run_to_exit_code(partial(_execute, source, module))
    # As the interpreter does before it ends.
    exit_hooks_code = _run_to_exit_code(_run_exit_hooks)
    _flush()
    # Files that the program left open are flushed when they are collected, and finalizers may print.
    module.__dict__.clear()
    if any(word in source for word in _ENDS_LATE):
        gc.collect()
    _flush()
    return code or exit_hooks_code


def _run_exit_hooks() -> None:
    if threading.active_count() > 1 or threading._threading_atexits:  # type: ignore[attr-defined]
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        try:  # noqa: SIM105 - contextlib would cost each child pages
            stream.flush()  # type: ignore[union-attr]
        except BaseException:  # noqa: BLE001, S110 - a program may have put anything there
            pass


def _run_solution(source: bytes) -> int:
    module = _make_module("solution")

    def load_and_serve() -> None:
        sys.setrecursionlimit(_RECURSION)
        mentioned = _execute(source, module)
        serve_solution(module.__dict__, JudgeChannel(_CHANNEL), mentioned)

    code = _run_to_exit_code(load_and_serve)
    _flush()
    return code


def _execute_command(argv: list[str], source_bytes: int) -> None:
    """Becomes the interpreter, which finds the source at the offset of descriptor 3."""
    os.lseek(_JOB, -source_bytes, os.SEEK_END)
    os.set_inheritable(_JOB, True)
    os.execve(argv[0], argv, dict(os.environ))  # noqa: S606 - the filter and Landlock decide what this may be


def _execute(source: bytes, module: types.ModuleType) -> Collection[str]:
    """Runs the program in the module; returns the names that its code mentions."""
    text = source.decode().removeprefix("\ufeff")
    code = compile(text, _FILE_NAME, "exec", dont_inherit=True, optimize=0)
    mentioned = names_in(code)
    add_usual_names(mentioned)
    exec(code, module.__dict__)  # noqa: S102 - the purpose
    return mentioned


def _run_to_exit_code(work: Callable[[], object]) -> int:
    """Runs `work`; the exit code that an interpreter would end with."""
    try:
        work()
    except SystemExit as end:
        return _exit_code(end.code)
    except MemoryError:
        return EXIT_MEMORY
    except BaseException as error:  # noqa: BLE001 - any exception ends the program, as in an interpreter
        with contextlib.suppress(BaseException):
            _name_remedy(error)
            traceback.print_exc(limit=-8)
        return _EXIT_ERROR
    return 0


def _name_remedy(error: BaseException) -> None:
    """Says how a package becomes importable, where one was missing."""
    if isinstance(error, ModuleNotFoundError) and _top(error) not in sys.stdlib_module_names:
        error.msg = f"{error.msg} (code.packages says which packages programs may import)"


def _top(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return _EXIT_ERROR
