"""What the service and its fork-server send each other: one datagram a message, descriptors beside it."""

import fcntl
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from services.verifier.sandbox.sandbox import Limits

MAX_MESSAGE_BYTES = 8192
MAX_DESCRIPTORS = 5

# A child seals its standard output with this just before its program starts.
READY_SEAL = fcntl.F_SEAL_SEAL
# How a child exits that ran out of memory, or could not enter its jail.
EXIT_MEMORY = 112
EXIT_NO_JAIL = 113

_LAUNCH = struct.Struct("<QIIdddQQI")
_STARTED = struct.Struct("<BQ")
_ENDED = struct.Struct("<BQidQ")
_FORK_FAILED = struct.Struct("<BQi")


@dataclass(frozen=True, slots=True)
class JailOptions:
    """How many programs run at once (each perhaps with a judge), and what they may read and execute besides Python."""

    concurrency: int = 2
    uses_namespaces: bool = True
    readable: Sequence[str] = ()
    executable: Sequence[str] = ()

    @property
    def max_processes(self) -> int:
        return 2 * self.concurrency

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "JailOptions":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Starts one process. Its descriptors: standard input, output, error, the job, and the channel of a pair."""

    job_id: int
    role: int
    user_index: int
    limits: Limits

    def pack(self) -> bytes:
        limits = self.limits
        return _LAUNCH.pack(
            self.job_id,
            self.role,
            self.user_index,
            limits.wall_seconds,
            limits.starved_seconds,
            limits.cpu_seconds,
            limits.memory_bytes,
            limits.output_bytes,
            limits.num_threads,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "LaunchRequest":
        job_id, role, user_index, *limits = _LAUNCH.unpack(data)
        return cls(job_id, role, user_index, Limits(*limits))


@dataclass(frozen=True, slots=True)
class Ready:
    """The fork-server is ready, with these layers."""

    layers: Mapping[str, str]

    def pack(self) -> bytes:
        return b"\x00" + json.dumps(dict(self.layers)).encode()


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The process runs; its pidfd comes with this message."""

    job_id: int

    def pack(self) -> bytes:
        return _STARTED.pack(1, self.job_id)


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """The process is gone and reaped; `status` is that of wait(2)."""

    job_id: int
    status: int
    cpu_seconds: float
    peak_memory_bytes: int

    def pack(self) -> bytes:
        return _ENDED.pack(2, self.job_id, self.status, self.cpu_seconds, self.peak_memory_bytes)


@dataclass(frozen=True, slots=True)
class ForkFailed:
    """The process could not be made."""

    job_id: int
    error_number: int

    def pack(self) -> bytes:
        return _FORK_FAILED.pack(3, self.job_id, self.error_number)


ForkServerMessage = Ready | ProcessStarted | ProcessEnded | ForkFailed


def unpack_message(data: bytes) -> ForkServerMessage:
    """Any message of the fork-server."""
    match data[0]:
        case 0:
            return Ready(json.loads(data[1:]))
        case 1:
            return ProcessStarted(*_STARTED.unpack(data)[1:])
        case 2:
            return ProcessEnded(*_ENDED.unpack(data)[1:])
        case _:
            return ForkFailed(*_FORK_FAILED.unpack(data)[1:])
