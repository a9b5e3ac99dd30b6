"""Resource limits of a child process."""

import resource
from resource import (
    RLIM_INFINITY,
    RLIMIT_AS,
    RLIMIT_CPU,
    RLIMIT_FSIZE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    getrlimit,
    setrlimit,
)

from services.verifier.sandbox.sandbox import KernelLimits

_NUM_OPEN_FILES = 64
_STACK_BYTES = 64 << 20


def apply_limits(limits: KernelLimits, own_bytes: int, num_other_processes: int) -> None:
    """Limits this process, on top of the address space it has and of the processes and threads its user has."""
    cpu_seconds, memory_bytes, output_bytes, num_threads, _ = limits
    address_space, num_processes = own_bytes + memory_bytes, num_other_processes + num_threads
    # First a signal that a program may catch; a second later it is killed.
    _set(RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _set(RLIMIT_AS, address_space, address_space)
    _set(RLIMIT_FSIZE, output_bytes, output_bytes)
    _set(RLIMIT_NPROC, num_processes, num_processes)
    _set(RLIMIT_NOFILE, _NUM_OPEN_FILES, _NUM_OPEN_FILES)


def apply_common_limits() -> None:
    """The limits that are the same for every child: set once, then inherited. A child may raise its stack."""
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set(limit, 0, 0)
    _set(resource.RLIMIT_STACK, _STACK_BYTES, None)


def read_address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 128 << 20


def _set(limit: int, soft: int, hard: int | None) -> None:
    """Sets a limit as far as the present hard limit allows; without `hard`, that stays."""
    highest = getrlimit(limit)[1]
    if highest != RLIM_INFINITY:
        soft, hard = min(soft, highest), highest if hard is None else min(hard, highest)
    setrlimit(limit, (soft, highest if hard is None else hard))
