"""The bodies of transfers, as they are written to a directory while they come in."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol

import xxhash

from shared.errors import InvalidInput
from shared.protocol.weights import Manifest
from shared.weights.delta import BLOCK_BYTES, HEAD_BYTES, BlockHead
from shared.weights.manifest import PlacedPiece, Snapshot, places_of, require_hash
from shared.weights.rebuild import Rebuild

_MOST_PLAIN = 32
"""How often the bytes of its result a delta may decompress: some four times is much, a bomb has thousands."""


class Body(Protocol):
    """Takes a body in. All of it blocks: disk."""

    def write(self, data: memoryview) -> None:
        """The next bytes, in pieces of any size. InvalidInput where they are wrong by themselves."""

    def finish(self) -> None:
        """InvalidInput unless the directory now holds what the manifest announced."""

    def close(self) -> None:
        """Frees everything."""


class FullBody:
    """All bytes of a bundle's files, hashed as they come."""

    def __init__(self, manifest: Manifest, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._places = places_of(manifest)
        self._place: PlacedPiece | None = None
        self._remaining = 0
        self._digest = xxhash.xxh3_128()
        with ExitStack() as made:
            made.callback(self.close)
            self._next_piece()
            made.pop_all()

    def write(self, data: memoryview) -> None:
        while data:
            if self._place is None or self._file is None:
                raise InvalidInput("the bundle has bytes after its last file; it was not framed by its own manifest")
            taken, data = data[: self._remaining], data[self._remaining :]
            self._digest.update(taken)
            self._remaining -= len(taken)
            while taken:
                taken = taken[self._file.write(taken) :]
            if not self._remaining:
                self._end_piece()

    def finish(self) -> None:
        if self._place is not None:
            raise InvalidInput(f"the bundle ends within {self._place.file}; send it again")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end_piece(self) -> None:
        assert self._place is not None
        require_hash(self._place, self._digest.hexdigest())
        self._digest.reset()
        self._next_piece()

    def _next_piece(self) -> None:
        """Goes to the next piece that has bytes, and to its file; files of empty pieces are made on the way."""
        for place in self._places:
            if place.begin == 0 and (self._place is None or self._place.file != place.file):
                self._next_file(place.file)
            self._place, self._remaining = place, place.piece.num_bytes
            if self._remaining:
                return
            require_hash(place, self._digest.hexdigest())
        self._place = None
        self._end_file()

    def _next_file(self, name: str) -> None:
        self._end_file()
        self._file = (self._directory / name).open("xb", buffering=0)

    def _end_file(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self.close()


class DeltaBody:
    """Blocks that change the base. Every piece of the result is hashed, also those that no block touches: the base may
    have changed on the disk since it came."""

    def __init__(self, manifest: Manifest, base: Snapshot, directory: Path) -> None:
        self._rebuild = Rebuild(manifest, base, directory)
        self._plain_bytes_left = BLOCK_BYTES + _MOST_PLAIN * manifest.num_bytes
        self._waiting = bytearray()
        self._head: BlockHead | None = None

    def write(self, data: memoryview) -> None:
        while data:
            wanted = (self._head.num_bytes if self._head else HEAD_BYTES) - len(self._waiting)
            self._waiting += data[:wanted]
            data = data[wanted:]
            if len(self._waiting) == (self._head.num_bytes if self._head else HEAD_BYTES):
                self._take(self._waiting)
                self._waiting = bytearray()

    def finish(self) -> None:
        if self._waiting or self._head:
            raise InvalidInput("the delta ends within a block; send it again")
        self._rebuild.finish()

    def close(self) -> None:
        self._rebuild.close()

    def _take(self, data: bytearray) -> None:
        """A head, or the payload of one."""
        if self._head is None:
            head = BlockHead.unpack(data)
            places = self._rebuild.places
            if head.piece >= len(places):
                raise InvalidInput(f"a block of piece {head.piece}; the bundle has {len(places)}")
            piece = places[head.piece].piece
            head.check(piece.num_bytes // piece.width, piece.width)
            self._head = head
            if head.num_bytes:
                return
            data = bytearray()
        head, self._head = self._head, None
        self._plain_bytes_left -= self._rebuild.apply(head, data)
        if self._plain_bytes_left < 0:
            raise InvalidInput(f"the delta's blocks hold over {_MOST_PLAIN} times the bytes of what they lead to")
