"""What the service and its fork-server send each other: one datagram a message, descriptors beside it."""

import fcntl
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from services.verifier.sandbox.sandbox import KernelLimits

# A layer that is not a layer of isolation, but needs some; and the state of one that holds.
SCRATCH_FOLDERS = "scratch folders"
ON = "on"
MAX_MESSAGE_BYTES = 8192
MAX_DESCRIPTORS = 5

# A child seals its standard output with this just before its program starts.
READY_SEAL = fcntl.F_SEAL_SEAL
# How a child exits that ran out of memory, or could not enter its jail.
EXIT_MEMORY = 112
EXIT_NO_JAIL = 113

_LAUNCH = struct.Struct("<QIIQQQIQ")


@dataclass(frozen=True, slots=True)
class JailOptions:
    """How many programs run at once (each perhaps with a judge), and what they may read and execute besides Python.

    Up to `slow_runs` programs more are kept beside those, once they have run for a while. `packages` can be imported by
    them, from the folders.
    """

    concurrency: int = 2
    uses_namespaces: bool = True
    readable: Sequence[str] = ()
    executable: Sequence[str] = ()
    packages: Sequence[str] = ()
    package_folders: Sequence[str] = ()
    slow_runs: int = 32

    @property
    def max_processes(self) -> int:
        return 2 * (self.concurrency + self.slow_runs)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "JailOptions":
        return cls(**json.loads(text))


class LaunchRequest(NamedTuple):
    """Starts one process. Its descriptors: standard input, output, error, the job, and the channel of a pair."""

    job_id: int
    role: int
    user_index: int
    limits: KernelLimits

    def pack(self) -> bytes:
        return _LAUNCH.pack(self.job_id, self.role, self.user_index, *self.limits)

    @classmethod
    def unpack(cls, data: bytes) -> "LaunchRequest":
        job_id, role, user_index, *limits = _LAUNCH.unpack(data)
        return cls(job_id, role, user_index, KernelLimits(*limits))


class Ready(NamedTuple):
    """The fork-server is ready, with these layers."""

    layers: Mapping[str, str]


class ProcessStarted(NamedTuple):
    """The process runs; its pidfd comes with this message."""

    job_id: int


class ProcessEnded(NamedTuple):
    """The process is gone and reaped; `status` is that of wait(2)."""

    job_id: int
    status: int
    cpu_seconds: float
    peak_memory_bytes: int


class ForkFailed(NamedTuple):
    """The process could not be made."""

    job_id: int
    error_number: int


ForkServerMessage = Ready | ProcessStarted | ProcessEnded | ForkFailed
_TYPES = (Ready, ProcessStarted, ProcessEnded, ForkFailed)
_FIELDS = (None, *map(struct.Struct, ("<Q", "<QidQ", "<Qi")))


def pack_message(message: ForkServerMessage) -> bytes:
    """The number of the message's type, then its fields: numbers in binary, those of Ready as JSON."""
    number = _TYPES.index(type(message))
    fields = _FIELDS[number]
    return bytes((number,)) + (json.dumps(message).encode() if fields is None else fields.pack(*message))


def unpack_message(data: bytes) -> ForkServerMessage:
    fields = _FIELDS[data[0]]
    return _TYPES[data[0]](*(json.loads(data[1:]) if fields is None else fields.unpack(data[1:])))
