"""The socket between a solution and its judge, which carries frames of plain data."""

import os
import struct
from collections.abc import Callable
from typing import Any

from services.verifier.sandbox.jail.child.plain_data import MAX_BYTES, Malformed, decode, encode

_SIZE = struct.Struct("<I")
_CHUNK = 1 << 20


class JudgeChannel:
    """Sends and receives plain values. Both ends are jailed; neither trusts the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.replace: Callable[[Any], Any] = lambda value: value
        """What is sent for a value of no built-in type."""
        self.resolve: Callable[[Any], Any] = lambda value: value
        """What a Handle or a Graph stands for at this end."""

    def send(self, value: object) -> None:
        """Raises NotPlain before it sends anything; OSError when the other end is gone."""
        data = encode(value, self.replace)
        self._write(_SIZE.pack(len(data)) + data)

    def receive(self) -> Any:
        """The next value. Raises EOFError when the other end is gone, Malformed when it sent no value."""
        (size,) = _SIZE.unpack(self._read(_SIZE.size))
        if size > MAX_BYTES + _CHUNK:
            raise Malformed(f"a frame of {size} bytes")
        return decode(self._read(size), self.resolve)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._descriptor, min(size, _CHUNK))
            if not part:
                raise EOFError("the other end is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
