"""The files between the service and a child: anonymous memory, bounded, without a name."""

import fcntl
import os
import socket

from services.verifier.sandbox.sandbox import Program, Role

_INPUT_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MAX_STDERR_BYTES = 8192


class JobFiles:
    """The descriptors of one process."""

    def __init__(self, program: Program, channel: socket.socket | None) -> None:
        """Owns the channel from now on."""
        arguments = "".join(f"{argument}\0" for argument in (*program.command, *program.argv)).encode() + b"\n"
        if program.role is Role.NATIVE:
            arguments = b""  # the job is the executable file
        contents = {"stdin": program.stdin, "stdout": None, "stderr": None, "job": arguments + program.source}
        self._channel = channel
        self._files: list[int] = []
        try:
            for name, data in contents.items():
                self._files.append(_create_file(name, data))
        except OSError:
            self.close()
            raise
        self.stdin, self.stdout, self.stderr, self.job = self._files

    def descriptors(self) -> list[int]:
        """In the order of their numbers in the process."""
        return self._files if self._channel is None else [*self._files, self._channel.fileno()]

    def is_sealed(self, seal: int) -> bool:
        """Whether the child sealed its standard output so."""
        return bool(fcntl.fcntl(self.stdout, fcntl.F_GET_SEALS) & seal)

    def read_output(self, max_bytes: int) -> bytes:
        return os.pread(self.stdout, min(max_bytes, os.fstat(self.stdout).st_size), 0)

    def read_errors(self) -> bytes:
        """The last part of standard error."""
        return os.pread(self.stderr, _MAX_STDERR_BYTES, max(0, self.count_error_bytes() - _MAX_STDERR_BYTES))

    def count_error_bytes(self) -> int:
        return os.fstat(self.stderr).st_size

    def close_channel(self) -> None:
        """Closes the service's copy once the child has its own, so that the partner notices the child's end."""
        if self._channel is not None:
            self._channel.close()

    def close(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)
        self.close_channel()


def _create_file(name: str, data: bytes | None) -> int:
    """A descriptor of an anonymous file: empty, or sealed with `data` in it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if data is not None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _INPUT_SEALS)
    return descriptor
