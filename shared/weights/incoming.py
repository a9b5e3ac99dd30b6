"""A transfer as it comes in, from whatever connection."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import InvalidInput, Unavailable
from shared.protocol.message import complaint
from shared.protocol.weights import Transfer
from shared.weights.bodies import Body
from shared.weights.framing import LENGTH_BYTES, MAGIC, MAX_HEAD_BYTES, START_BYTES


class Incoming:
    """Feeds a body from chunks of any size; holds at most the head, or a block. It survives a broken connection: what
    comes next continues at byte `num_bytes`.

    `accept` says from its head how a transfer is taken in; None where nothing of it is wanted.
    """

    def __init__(self, accept: Callable[[Transfer], Body | None], directory: Path) -> None:
        self._accept = accept
        self._body: Body | None = None
        self._head = bytearray()
        self._left = 0
        self._lock = threading.Lock()  # whoever waited for a thread that feeds may have gone
        self._is_closed = False
        self.directory = directory
        self.transfer: Transfer | None = None
        """What comes; None until its head has come."""
        self.num_bytes = 0
        """Of the framed transfer, so far."""
        self.is_wanted = True
        """False where the rest need not be sent: the bundle is here already."""

    def feed(self, data: memoryview) -> bool:
        """The next bytes; whether more are wanted. Blocking: disk.

        InvalidInput where they are no transfer, Unavailable where they cannot be stored, and what `accept` raises; then
        nothing more can be fed.
        """
        with self._working():
            self.num_bytes += len(data)
            if self.transfer is None:
                data = self._read_head(data)
            if self.transfer is not None and self._body is not None:
                self._left -= len(data)
                if self._left < 0:
                    raise InvalidInput(f"the bundle has bytes after its last file: over {self.transfer.num_bytes}")
                self._body.write(data)
            return self.is_wanted

    def finish(self) -> Transfer:
        """What has come, whole and verified; InvalidInput where it is not. Blocking: disk."""
        with self._working():
            if self.transfer is None:
                what = "the header" if len(self._head) < START_BYTES else "its description"
                raise InvalidInput(f"the bundle ends within {what}; send it again")
            if self._body is not None:
                self._body.finish()
            return self.transfer

    def close(self) -> None:
        """Frees everything but what is on the disk, as soon as nobody feeds it; nothing is written afterwards.
        Blocking."""
        with self._lock:
            self._is_closed = True
            if self._body is not None:
                self._body.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise Unavailable("this transfer was given up")
            try:
                yield
            except OSError as error:
                raise no_room(self.directory.parents[1], error) from error

    def _read_head(self, data: memoryview) -> memoryview:
        """Takes the head from the bytes; returns what comes after it."""
        taken = self._take(data, START_BYTES)
        if len(self._head) < START_BYTES:
            return data[taken:]
        if not self._head.startswith(MAGIC):
            raise InvalidInput(f"not a weight bundle: it begins with {bytes(self._head[:8])!r}, not {MAGIC!r}")
        num_bytes = int.from_bytes(self._head[START_BYTES - LENGTH_BYTES : START_BYTES], "little")
        if not 0 < num_bytes <= MAX_HEAD_BYTES:
            raise InvalidInput(f"a description of {num_bytes} bytes; it has 1 to {MAX_HEAD_BYTES}")
        taken += self._take(data[taken:], START_BYTES + num_bytes)
        if len(self._head) == START_BYTES + num_bytes:
            try:
                transfer = Transfer.model_validate_json(self._head[START_BYTES:])
            except ValueError as error:
                raise InvalidInput(f"the bundle's description cannot be read: {complaint(error)}") from error
            self._head, self._left, self.transfer = bytearray(), transfer.num_bytes, transfer
            self._body = self._accept(transfer)
            self.is_wanted = self._body is not None
        return data[taken:]

    def _take(self, data: memoryview, length: int) -> int:
        """Extends what is there of the head to at most `length` bytes; returns how many of them are new."""
        wanted = max(0, length - len(self._head))
        self._head += data[:wanted]
        return min(wanted, len(data))


def no_room(root: Path, error: OSError) -> Unavailable:
    """What a store at `root` says when its disk fails."""
    return Unavailable(f"cannot store weights under {root}: {error.strerror}; check its space and rights")
