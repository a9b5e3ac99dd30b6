"""System calls that Python's standard library lacks, by ctypes."""

import ctypes
import fcntl
import os

LIBC = ctypes.CDLL(None, use_errno=True)

# Keeps the interpreter's lock during a call: the child of a fork must hold it.
_LIBC_WITH_LOCK = ctypes.PyDLL(None, use_errno=True)

# A function of its own from the library, with its types: to convert arguments here would cost each child pages.
_PRCTL = LIBC["prctl"]
_FCNTL = LIBC["fcntl"]
_PRCTL.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38


def checked(result: int, call: str) -> int:
    """The result of a C call. Raises OSError with the call's name if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2); the kernel wants unused arguments to be zero."""
    result = _PRCTL(option, first, second, 0, 0)
    return result if result >= 0 else checked(result, f"prctl({option})")


def seal(descriptor: int, seals: int) -> None:
    """Adds seals to a file in memory."""
    checked(_FCNTL(descriptor, fcntl.F_ADD_SEALS, seals), "fcntl(F_ADD_SEALS)")


def system_call(number: int, *arguments: int | ctypes.c_void_p | bytes | None) -> int:
    """Makes a system call by its number; integers are passed as longs."""
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(LIBC.syscall(ctypes.c_long(number), *longs), f"system call {number}")


def fork() -> int:
    """fork(2) without the interpreter's work around it; only for a process with one thread.

    `os.fork` renews locks and thread records, which only more threads need. For that its child touches 150 pages, a
    third of what a small program costs. Random generators are not reseeded.
    """
    return checked(_LIBC_WITH_LOCK.fork(), "fork")
