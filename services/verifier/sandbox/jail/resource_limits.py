"""Resource limits of a jailed process."""

import math
import resource
from dataclasses import dataclass

_NUM_OPEN_FILES = 64
_STACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """The limits as the kernel takes them, within those that the fork-server itself has."""

    cpu_seconds: int
    address_space_bytes: int
    file_bytes: int
    num_processes: int

    def apply(self) -> None:
        # First a signal that a program may catch; a second later it is killed.
        _set(resource.RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + 1)
        _set(resource.RLIMIT_AS, self.address_space_bytes, self.address_space_bytes)
        _set(resource.RLIMIT_FSIZE, self.file_bytes, self.file_bytes)
        _set(resource.RLIMIT_NPROC, self.num_processes, self.num_processes)
        _set(resource.RLIMIT_NOFILE, _NUM_OPEN_FILES, _NUM_OPEN_FILES)


def apply_common_limits() -> None:
    """The limits that are the same for every child: set once, inherited. A child may raise its stack: it is memory."""
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _set(kind, 0, 0)
    _set(resource.RLIMIT_STACK, _STACK_BYTES, None)


def _set(kind: int, soft: int, hard: int | None) -> None:
    """Sets a limit as far as the one above it allows; without `hard`, that stays as it is."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), most if hard is None else min(hard, most)
    resource.setrlimit(kind, (soft, most if hard is None else hard))


def round_up_cpu_seconds(seconds: float) -> int:
    """The kernel counts processor time in whole seconds: rounded up."""
    return max(1, math.ceil(seconds))
