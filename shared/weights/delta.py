"""What differs between two bundles, as blocks that overwrite values: applying one twice is harmless.

A block is its head, `<IBQII`: the number of its piece, its coding, the first value it covers and how many values those
are, and the length of its payload. Values are 1, 2, 4 or 8 bytes wide, as the piece's type is. The payload is

- DENSE: the covered values as they are (compressing weights costs more than sending them);
- SPARSE: for each byte of a value, in how many values it differs, 4 bytes; then their gaps, 4 bytes each, as planes
  (all first bytes, all second ones, ...), for each byte of a value the first from the block's begin and the others from
  the one before; then the new bytes. All of it compressed by zstd. Training moves a bfloat16 mostly to its neighbour:
  one byte of two changes.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import zstandard

from shared.errors import InvalidInput

BLOCK_BYTES = 1 << 22
"""The most bytes of values that a block covers."""
_HEAD = struct.Struct("<IBQII")
HEAD_BYTES = _HEAD.size
_GAP = np.dtype("<u4")
_GAP_BYTES = _GAP.itemsize
_LEVEL = 1
_MOST_WINDOW = 1 << 25
_SPARSE_SHARE = 0.25
"""Up to this share of differing values, where they lie costs less than sending all."""
Values: TypeAlias = np.ndarray[Any, np.dtype[Any]]
_TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Coding(IntEnum):
    """How a block's payload holds values."""

    DENSE = 0
    SPARSE = 1


class BlockHead(NamedTuple):
    """What a block says before its payload."""

    piece: int
    coding: Coding
    begin: int
    num_values: int
    num_bytes: int

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> "BlockHead":
        """InvalidInput where these bytes are no head."""
        piece, coding, begin, num_values, num_bytes = _HEAD.unpack(data)
        if coding not in Coding.__members__.values():
            raise InvalidInput(f"a block of coding {coding}; there are 0 to {max(Coding)}")
        return cls(piece, Coding(coding), begin, num_values, num_bytes)

    def check(self, piece_values: int, width: int) -> None:
        """InvalidInput unless the block lies within its piece and its payload is bounded."""
        covered = self.num_values * width
        if not 0 < covered <= BLOCK_BYTES or self.begin + self.num_values > piece_values:
            raise InvalidInput(
                f"a block of {self.num_values} values from {self.begin} on does not lie in its piece of "
                f"{piece_values}, or has more than {BLOCK_BYTES} bytes"
            )
        if self.num_bytes > covered or (self.coding is Coding.DENSE and self.num_bytes != covered):
            raise InvalidInput(
                f"a block of {covered} bytes has a payload of {self.num_bytes}; at most {covered} are right"
            )


def values_in(buffer: Any, begin: int, num_bytes: int, width: int) -> Values:
    """A piece of a mapped file as unsigned numbers of `width` bytes, which compare as bits do (NaN too); a view."""
    return np.ndarray((num_bytes // width,), _TYPES[width], buffer, begin)


def encode_piece(number: int, new: Values, base: Values | None) -> Iterator[bytes]:
    """The blocks that make `base` [N] into `new` [N], or write all of it where there is no base. Where nothing differs
    there are none."""
    size = BLOCK_BYTES // new.itemsize
    for begin in range(0, len(new), size):
        block = new[begin : begin + size]
        yield from _encode_block(number, begin, block, None if base is None else base[begin : begin + size])


def _encode_block(number: int, begin: int, new: Values, base: Values | None) -> Iterator[bytes]:
    coding, payload = Coding.DENSE, b""
    if base is not None:
        positions = np.flatnonzero(new != base)
        if not len(positions):
            return
        if len(positions) < _SPARSE_SHARE * len(new):
            coding, payload = Coding.SPARSE, _sparse(new, base, positions)
    if coding is Coding.DENSE or len(payload) >= new.nbytes:
        coding, payload = Coding.DENSE, new.tobytes()
    yield _HEAD.pack(number, coding, begin, len(new), len(payload)) + payload


def _sparse(new: Values, base: Values, positions: Values) -> bytes:
    changed = (new[positions] ^ base[positions])[:, None].view(np.uint8)  # [n, width]
    written = new[positions, None].view(np.uint8)
    counts, gaps, values = [], [], []
    for byte in range(new.itemsize):
        differs = changed[:, byte] != 0
        counts.append(int(differs.sum()))
        gaps.append(np.diff(positions[differs], prepend=0).astype(_GAP))
        values.append(written[differs, byte])
    plain = np.array(counts, _GAP).tobytes() + _planes(np.concatenate(gaps)) + np.concatenate(values).tobytes()
    return zstandard.ZstdCompressor(_LEVEL).compress(plain)


def apply_block(head: BlockHead, payload: bytes | bytearray, target: Values) -> int:
    """Overwrites values of a piece, `target` [N], as a checked block says; how many bytes its payload holds,
    uncompressed. InvalidInput where that is none."""
    covered = target[head.begin : head.begin + head.num_values]
    if head.coding is Coding.DENSE:
        covered[:] = np.frombuffer(payload, target.dtype)
        return len(payload)
    return _apply_sparse(payload, covered)


def _apply_sparse(payload: bytes | bytearray, covered: Values) -> int:
    width, each = covered.itemsize, _GAP_BYTES + 1
    table = width * _GAP_BYTES
    plain = np.frombuffer(_decompress(payload, table, table + covered.nbytes * each), np.uint8)
    counts = plain[:table].view(_GAP).astype(np.int64)
    if (total := int(counts.sum())) * each != len(plain) - table:
        raise InvalidInput(f"a sparse block of {len(plain)} bytes that announces {total} changes")
    gaps = _from_planes(plain[table : table + total * _GAP_BYTES], _GAP)
    ends = np.cumsum(counts)
    covered_bytes = covered.view(np.uint8).reshape(-1, width)
    for byte, (end, count) in enumerate(zip(ends, counts, strict=True)):
        positions = np.cumsum(gaps[end - count : end], dtype=np.int64)
        if count and positions[-1] >= len(covered):
            raise InvalidInput("a sparse block that writes beyond what it covers")
        covered_bytes[positions, byte] = plain[len(plain) - total :][end - count : end]
    return len(plain)


def _decompress(payload: bytes | bytearray, least: int, most: int) -> bytes:
    """Memory is taken only for a length that is allowed."""
    try:
        said = zstandard.get_frame_parameters(payload).content_size
        if not least <= said <= most:
            raise InvalidInput(f"a block's payload announces {said} bytes; {least} to {most} are right")
        return zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InvalidInput(f"a block's payload is not zstd: {error}") from error


def _planes(values: Values) -> bytes:
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _from_planes(planes: Values, dtype: Any) -> Values:
    values: Values = np.ascontiguousarray(planes.reshape(np.dtype(dtype).itemsize, -1).T).view(dtype).reshape(-1)
    return values
