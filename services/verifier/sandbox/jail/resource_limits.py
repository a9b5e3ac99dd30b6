"""Resource limits of a child process."""

import resource

from services.verifier.sandbox.sandbox import Limits

_NUM_OPEN_FILES = 64
_STACK_BYTES = 64 << 20


def apply_limits(limits: Limits, own_bytes: int, num_other_processes: int) -> None:
    """Limits this process, on top of the address space it has and of the processes and threads its user has."""
    cpu_seconds, address_space = limits.whole_cpu_seconds, own_bytes + limits.memory_bytes
    num_processes = num_other_processes + limits.num_threads
    # First a signal that a program may catch; a second later it is killed.
    _set(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _set(resource.RLIMIT_AS, address_space, address_space)
    _set(resource.RLIMIT_FSIZE, limits.output_bytes, limits.output_bytes)
    _set(resource.RLIMIT_NPROC, num_processes, num_processes)
    _set(resource.RLIMIT_NOFILE, _NUM_OPEN_FILES, _NUM_OPEN_FILES)


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
    highest = resource.getrlimit(limit)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), highest if hard is None else min(hard, highest)
    resource.setrlimit(limit, (soft, highest if hard is None else hard))
