"""Compiles a SyscallPolicy into the BPF program that seccomp runs at each system call.

Ours, not libseccomp's: slim images lack that library, and the tests run this program for every call number.
"""

import ctypes
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.sandbox.jail.syscall_policy import Purpose, SyscallPolicy
from services.verifier.sandbox.kernel import PR_SET_SECCOMP, prctl

ALLOW = 0x7FFF0000
KILL = 0x80000000
_REFUSE = 0x00050000

_LOAD, _IF_EQUAL, _IF_ABOVE_OR_EQUAL, _IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_X32_BIT = 0x40000000

_SECCOMP_MODE_FILTER = 2


@dataclass(frozen=True, slots=True)
class Instruction:
    """One BPF instruction; jumps are numbers of instructions to skip."""

    code: int
    k: int
    if_true: int = 0
    if_false: int = 0

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.k)


Instructions = tuple[Instruction, ...]


def refuse(error_number: int) -> int:
    """The action that makes a call fail with this errno."""
    return _REFUSE | error_number


def _load_argument(index: int) -> Instruction:
    return Instruction(_LOAD, 16 + 8 * index)


_ALLOW, _KILL = Instruction(_RETURN, ALLOW), Instruction(_RETURN, KILL)
_NOT_PERMITTED, _MISSING, _NO_TERMINAL = (
    Instruction(_RETURN, refuse(number)) for number in (errno.EPERM, errno.ENOSYS, errno.ENOTTY)
)


def _allow_if_one_of(index: int, values: Sequence[int], otherwise: Instruction) -> Instructions:
    tests = (Instruction(_IF_EQUAL, value, len(values) - position) for position, value in enumerate(values))
    return (_load_argument(index), *tests, otherwise, _ALLOW)


_STACK, _OPEN_FILES, _ADDRESS_SPACE = 3, 7, 9
_PROT_WRITE, _PROT_EXEC = 0x2, 0x4
_MAP_SHARED, _MAP_ANONYMOUS = 0x1, 0x20

_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030, 1033, 1034)

_CHECKS: dict[str, Instructions] = {
    # No memory becomes executable: what the interpreter may need is mapped before the filter (preload_libraries).
    "mmap": (_load_argument(2), Instruction(_IF_ANY_BIT, _PROT_EXEC, 1), _ALLOW, _NOT_PERMITTED),
    "mprotect": (_load_argument(2), Instruction(_IF_ANY_BIT, _PROT_EXEC, 1), _ALLOW, _NOT_PERMITTED),
    # Threads only: CLONE_VM and CLONE_THREAD set, no new namespace, no CLONE_PTRACE.
    "clone": (
        _load_argument(0),
        Instruction(_IF_ANY_BIT, 0x7E022000, 3, 0),
        Instruction(_AND, 0x10100),
        Instruction(_IF_EQUAL, 0x10100, 0, 1),
        _ALLOW,
        _NOT_PERMITTED,
    ),
    # The process's own limits only: by its pid it could reach others of its user. It may not lower its processor
    # time: its death would then look like a failure of ours.
    "prlimit64": (
        _load_argument(0),
        Instruction(_IF_EQUAL, 0, 1, 0),
        _NOT_PERMITTED,
        _load_argument(2),
        Instruction(_IF_EQUAL, 0, 0, 2),
        Instruction(_LOAD, 20 + 8 * 2),
        Instruction(_IF_EQUAL, 0, 5, 0),  # no new limit: a question
        _load_argument(1),
        Instruction(_IF_EQUAL, _STACK, 3),
        Instruction(_IF_EQUAL, _OPEN_FILES, 2),
        Instruction(_IF_EQUAL, _ADDRESS_SPACE, 1),
        _NOT_PERMITTED,
        _ALLOW,
    ),
    # Unix stream pairs, which reach no other process; event loops wake themselves with one.
    "socketpair": (
        _load_argument(0),
        Instruction(_IF_EQUAL, 1, 0, 4),
        _load_argument(1),
        Instruction(_AND, 0xF),
        Instruction(_IF_EQUAL, 1, 0, 1),
        _ALLOW,
        _NOT_PERMITTED,
    ),
    # Descriptor flags, duplicates and seals; not the receiver of signals, which may be another process.
    "fcntl": _allow_if_one_of(1, _FCNTL_COMMANDS, _NOT_PERMITTED),
    # Of a descriptor alone (AT_EMPTY_PATH), not of a name.
    "execveat": _allow_if_one_of(4, (0x1000,), _NOT_PERMITTED),
    # Questions about terminals, FIONREAD, FIONBIO and the close-on-exec flag.
    "ioctl": _allow_if_one_of(1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451), _NO_TERMINAL),
}

# Locks of files too, without which SQLite does nothing.
_CHECKS_WITH_FILES: dict[str, Instructions] = {
    "fcntl": _allow_if_one_of(1, (*_FCNTL_COMMANDS, 5, 6, 7), _NOT_PERMITTED),
}

# A program that is executed maps its libraries under the filter: privately, from files.
_CHECKS_OF_COMMANDS: dict[str, Instructions] = {
    "mmap": (
        _load_argument(2),
        Instruction(_IF_ANY_BIT, _PROT_EXEC, 0, 3),
        Instruction(_IF_ANY_BIT, _PROT_WRITE, 3, 0),
        _load_argument(3),
        Instruction(_IF_ANY_BIT, _MAP_SHARED | _MAP_ANONYMOUS, 1, 0),
        _ALLOW,
        _NOT_PERMITTED,
    ),
}

_CHECKS_OF_PURPOSE = {Purpose.COMMAND: _CHECKS_OF_COMMANDS, Purpose.FILES: _CHECKS_WITH_FILES}


def _split_into_intervals(policy: SyscallPolicy) -> list[tuple[int, Instructions]]:
    """Splits the call numbers into intervals with one action: the first number of each, with its instructions."""
    actions: dict[int, Instructions] = dict.fromkeys(policy.allowed.values(), (_ALLOW,))
    actions |= dict.fromkeys(policy.absent.values(), (_MISSING,))
    actions |= dict.fromkeys(policy.violations.values(), (_KILL,))
    checks = _CHECKS | _CHECKS_OF_PURPOSE.get(policy.purpose, {})
    actions |= {number: checks[name] for name, number in policy.checked.items()}
    borders = sorted({0, *actions, *(number + 1 for number in actions)})
    intervals: list[tuple[int, Instructions]] = []
    for border in borders:
        action = actions.get(border, (_NOT_PERMITTED,))
        if not intervals or intervals[-1][1] != action:
            intervals.append((border, action))
    return intervals


def _compile_search(intervals: Sequence[tuple[int, Instructions]]) -> Instructions:
    """Binary search over the intervals; the accumulator holds the call number."""
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    below, above = _compile_search(intervals[:middle]), _compile_search(intervals[middle:])
    if len(below) > 255:
        raise ValueError(f"the filter's jump over {len(below)} instructions is too far: shorten the policy")
    return (Instruction(_IF_ABOVE_OR_EQUAL, intervals[middle][0], len(below)), *below, *above)


def compile_filter(policy: SyscallPolicy) -> Instructions:
    return (
        # Numbers of another machine type mean other calls.
        Instruction(_LOAD, _ARCHITECTURE),
        Instruction(_IF_EQUAL, policy.machine.audit_number, 1),
        _KILL,
        Instruction(_LOAD, _NUMBER),
        *((Instruction(_IF_ABOVE_OR_EQUAL, _X32_BIT, 0, 1), _KILL) if policy.machine.has_x32 else ()),
        *_compile_search(_split_into_intervals(policy)),
    )


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


class SyscallFilter:
    """A compiled program, ready for the kernel."""

    def __init__(self, program: Instructions) -> None:
        self._code = ctypes.create_string_buffer(b"".join(instruction.pack() for instruction in program))
        self._program = _Program(len(program), ctypes.addressof(self._code))
        self._address = ctypes.addressof(self._program)

    def apply(self) -> None:
        """Filters the calls of this process, and of all it starts, for good. Needs no_new_privs."""
        prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._address)
