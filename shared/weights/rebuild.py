"""Makes a bundle of another one and of blocks that change it, in one pass over its bytes as long as blocks ascend."""

import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import xxhash

from shared.errors import InvalidInput
from shared.protocol.weights import Manifest
from shared.weights.delta import BlockHead, Values, apply_block, values_in
from shared.weights.manifest import PlacedPiece, Snapshot, check_piece, places_of, require_hash, same_layout

_COPIED_BYTES = 1 << 20


class _Source:
    """The base's bytes of one file, from its first to its last; zeros where the base has no file of this layout."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0) if path else None
        except OSError as error:
            raise InvalidInput(f"{path}, which this delta changes, cannot be read: {error}; send all") from error

    def read_into(self, buffer: memoryview) -> None:
        """Fills the buffer; InvalidInput where the file has ended."""
        if self._file is None:
            buffer[:] = bytes(len(buffer))
            return
        while buffer:
            count = self._file.readinto(buffer)
            if not count:
                raise InvalidInput(
                    f"{self._path} has become shorter since it came, and this delta changes it; send all"
                )
            buffer = buffer[count:]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Rebuild:
    """Writes the files of `manifest` to a directory. Blocks in the order of their pieces, as one delta has them, are
    applied while the base is copied; later ones, of a chain, to the files that are there then."""

    def __init__(self, manifest: Manifest, base: Snapshot, directory: Path) -> None:
        self._places: Sequence[PlacedPiece] = list(places_of(manifest))
        self._files = manifest.files
        self._base = base
        self._directory = directory
        self._digests: list[str] = []
        """Of the pieces that the first pass has written."""
        self._digest = xxhash.xxh3_128()
        self._written = 0
        """Bytes of the piece that the first pass is at."""
        self._buffer = bytearray(_COPIED_BYTES)
        self._source: _Source | None = None
        self._target: BinaryIO | None = None
        self._patched: set[int] = set()
        self._mapped: dict[str, mmap.mmap] = {}

    @property
    def places(self) -> Sequence[PlacedPiece]:
        """All pieces of the result: blocks name them by their number here."""
        return self._places

    def apply(self, head: BlockHead, payload: bytes | bytearray) -> int:
        """Applies a checked block; returns what `apply_block` does."""
        place = self._places[head.piece]
        begin = head.begin * place.piece.width
        if (head.piece, begin) < (len(self._digests), self._written):
            self._copy_until(len(self._places), 0)
            self._patched.add(head.piece)
            return apply_block(head, payload, self._values(place))
        self._copy_until(head.piece, begin)
        data = memoryview(bytearray(head.num_values * place.piece.width))
        self._read(data)
        plain_bytes = apply_block(head._replace(begin=0), payload, values_in(data, 0, len(data), place.piece.width))
        self._write(data)
        return plain_bytes

    def finish(self) -> None:
        """Copies what is left; InvalidInput unless every piece is as the manifest says."""
        self._copy_until(len(self._places), 0)
        for mapped in self._mapped.values():
            mapped.flush()
        self.close()
        for number, (place, digest) in enumerate(zip(self._places, self._digests, strict=True)):
            if number in self._patched:
                check_piece(self._directory / place.file, place)
            else:
                require_hash(place, digest)

    def close(self) -> None:
        with ExitStack() as closing:
            for file in (self._source, self._target):
                if file is not None:
                    closing.callback(file.close)
            self._source = self._target = None
            for mapped in self._mapped.values():
                closing.callback(_close_mapped, mapped)
            self._mapped = {}

    def _copy_until(self, number: int, begin: int) -> None:
        """Writes the base's bytes up to byte `begin` of a piece."""
        while len(self._digests) < number:
            self._copy(self._places[len(self._digests)].piece.num_bytes - self._written)
            self._end_piece()
        self._copy(begin - self._written)

    def _copy(self, num_bytes: int) -> None:
        while num_bytes:
            data = memoryview(self._buffer)[:num_bytes]
            self._read(data)
            self._write(data)
            num_bytes -= len(data)

    def _read(self, data: memoryview) -> None:
        if self._source is None:
            self._open_file()
        assert self._source is not None
        self._source.read_into(data)

    def _write(self, data: memoryview) -> None:
        assert self._target is not None
        self._digest.update(data)
        self._written += len(data)
        while data:
            data = data[self._target.write(data) :]

    def _end_piece(self) -> None:
        if self._source is None:  # a file of no bytes
            self._open_file()
        number = len(self._digests)
        self._digests.append(self._digest.hexdigest())
        self._digest.reset()
        self._written = 0
        is_last = number + 1 == len(self._places) or self._places[number + 1].file != self._places[number].file
        if is_last:
            assert self._target is not None
            os.fsync(self._target.fileno())
            self.close()

    def _open_file(self) -> None:
        name = self._places[len(self._digests)].file
        file = next(one for one in self._files if one.name == name)
        is_alike = any(same_layout(known, file) for known in self._base.manifest.files)
        self._source = _Source(self._base.directory / name if is_alike else None)
        self._target = (self._directory / name).open("xb", buffering=0)

    def _values(self, place: PlacedPiece) -> Values:
        mapped = self._mapped.get(place.file)
        if mapped is None:
            with (self._directory / place.file).open("r+b") as file:
                mapped = self._mapped[place.file] = mmap.mmap(file.fileno(), 0)
        return values_in(mapped, place.begin, place.piece.num_bytes, place.piece.width)


def _close_mapped(mapped: mmap.mmap) -> None:
    with suppress(BufferError):  # a failed block is still looked at by its error
        mapped.close()
