"""A deadline for a call: code of the user's own that would loop for ever is ended."""

import ctypes
import math
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_AGAIN_SECONDS = 0.05
_GRACE_SECONDS = 2.0
"""How long a call may take to end once it is told to."""


class _Overdue(BaseException):
    """Raised in the midst of a call whose time is over. No Exception, so that few calls catch it."""


class Deadline:
    """Calls take at most `seconds`, each in a thread of its own.

    A loop of Python code is ended by an exception that is raised in it, again and again if it catches that. A call of
    C code, such as time.sleep, ends no sooner than it returns: its thread is left behind. Code that keeps the
    interpreter's lock, such as 10**10**9, stops all of the process: only another process can end it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def call(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """What the function returns; TimeoutError when it takes too long."""
        values: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                values.append(function(*arguments, **options))
            except _Overdue:
                pass
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                errors.append(error)

        thread = threading.Thread(target=work, name="deadline", daemon=True)
        thread.start()
        thread.join(min(self.seconds, threading.TIMEOUT_MAX))
        if thread.is_alive():
            _end(thread)
            raise TimeoutError(f"it took longer than {self.seconds:g} s")
        for error in errors:
            raise error
        return values[0]


NO_HURRY = Deadline(math.inf)


def _end(thread: threading.Thread) -> None:
    """Raises the exception in the thread until it ends, or for `_GRACE_SECONDS`."""
    for _ in range(round(_GRACE_SECONDS / _AGAIN_SECONDS)):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Overdue))
        thread.join(_AGAIN_SECONDS)
        if not thread.is_alive():
            return
