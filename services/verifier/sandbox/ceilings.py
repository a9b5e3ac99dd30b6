"""Resource limits of a jailed process."""

import math
import resource
from dataclasses import dataclass

_NUM_OPEN_FILES = 64
_STACK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The limits as the kernel takes them. The stack may be raised by the program: it counts as memory."""

    cpu_seconds: int
    address_space_bytes: int
    file_bytes: int
    num_processes: int

    def put_on(self) -> None:
        hard = (
            (resource.RLIMIT_CPU, self.cpu_seconds),
            (resource.RLIMIT_AS, self.address_space_bytes),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NPROC, self.num_processes),
            (resource.RLIMIT_NOFILE, _NUM_OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
        )
        for kind, value in hard:
            most = resource.getrlimit(kind)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(kind, (value, value))
        most = resource.getrlimit(resource.RLIMIT_STACK)[1]
        stack = _STACK_BYTES if most == resource.RLIM_INFINITY else min(_STACK_BYTES, most)
        resource.setrlimit(resource.RLIMIT_STACK, (stack, most))


def whole_cpu_seconds(seconds: float) -> int:
    """The kernel counts processor time in whole seconds: rounded up."""
    return max(1, math.ceil(seconds))
