"""The messages between the service and its fork-server: one datagram each, descriptors beside them."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

MAX_MESSAGE_BYTES = 8192
MAX_DESCRIPTORS = 5

_LAUNCH = struct.Struct("<QIIQQQI")
_STARTED = struct.Struct("<BQ")
_ENDED = struct.Struct("<BQidQ")
_REFUSED = struct.Struct("<BQi")


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """Starts one process. Its descriptors: standard input, output and error, the job, and perhaps a channel."""

    job_id: int
    role: int
    user_index: int
    cpu_seconds: int
    memory_bytes: int
    output_bytes: int
    num_threads: int

    def pack(self) -> bytes:
        return _LAUNCH.pack(
            self.job_id,
            self.role,
            self.user_index,
            self.cpu_seconds,
            self.memory_bytes,
            self.output_bytes,
            self.num_threads,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "LaunchRequest":
        return cls(*_LAUNCH.unpack(data))


@dataclass(frozen=True, slots=True)
class Ready:
    """The fork-server is ready, within these layers."""

    layers: Mapping[str, str]

    def pack(self) -> bytes:
        return b"\x00" + json.dumps(dict(self.layers)).encode()


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The process runs; its pidfd comes beside this message."""

    job_id: int

    def pack(self) -> bytes:
        return _STARTED.pack(1, self.job_id)


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """The process is gone and reaped. `status` as wait(2) tells it."""

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
        return _REFUSED.pack(3, self.job_id, self.error_number)


Reply = Ready | ProcessStarted | ProcessEnded | ForkFailed


def unpack_reply(data: bytes) -> Reply:
    """Any message of the fork-server."""
    match data[0]:
        case 0:
            return Ready(json.loads(data[1:]))
        case 1:
            return ProcessStarted(*_STARTED.unpack(data)[1:])
        case 2:
            return ProcessEnded(*_ENDED.unpack(data)[1:])
        case _:
            return ForkFailed(*_REFUSED.unpack(data)[1:])
