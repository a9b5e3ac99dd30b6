"""The files between the service and a jailed process: anonymous memory, bounded, without a name anywhere."""

import fcntl
import os
import socket
from dataclasses import dataclass

from services.verifier.sandbox.sandbox import Program

_SEALED_INPUT = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_KEPT_OF_STDERR = 8192


def memory_file(name: str, data: bytes | None = None) -> int:
    """A descriptor of an anonymous file: empty, or sealed with `data` in it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if data is not None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALED_INPUT)
    return descriptor


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The descriptors of one process, in the order of their numbers in it."""

    stdin: int
    stdout: int
    stderr: int
    job: int
    channel: socket.socket | None

    @classmethod
    def of(cls, program: Program, channel: socket.socket | None) -> "JobFiles":
        """Takes the channel over: it is closed with the rest."""
        arguments = "".join(f"{argument}\0" for argument in (*program.command, *program.argv)).encode() + b"\n"
        opened: list[int] = []
        try:
            for name, data in (
                ("stdin", program.stdin),
                ("stdout", None),
                ("stderr", None),
                ("job", arguments + program.source),
            ):
                opened.append(memory_file(name, data))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            if channel is not None:
                channel.close()
            raise
        stdin, stdout, stderr, job = opened
        return cls(stdin, stdout, stderr, job, channel)

    def descriptors(self) -> list[int]:
        own = [self.stdin, self.stdout, self.stderr, self.job]
        return own if self.channel is None else [*own, self.channel.fileno()]

    def has_seal(self, mark: int) -> bool:
        """Whether the child sealed its standard output so."""
        seals = fcntl.fcntl(self.stdout, fcntl.F_GET_SEALS)
        return bool(seals & mark)

    def output(self, most: int) -> bytes:
        return os.pread(self.stdout, most, 0)

    def errors(self) -> bytes:
        """The end of what went to standard error."""
        size = os.fstat(self.stderr).st_size
        return os.pread(self.stderr, _KEPT_OF_STDERR, max(0, size - _KEPT_OF_STDERR))

    def error_bytes(self) -> int:
        return os.fstat(self.stderr).st_size

    def close_passed(self) -> None:
        """Closes the channel's end once the child has it, so that the partner sees the child's death."""
        if self.channel is not None:
            self.channel.close()

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, self.job):
            os.close(descriptor)
        self.close_passed()
