"""Finds NaN and infinity in safetensors files, without torch."""

import json
from collections.abc import Iterator
from pathlib import Path

from shared.errors import InvalidInput

_LENGTH_BYTES = 8
_CHUNK_BYTES = 1 << 20


# Of each little-endian float: its size in bytes, and the exponent's bits within the two highest of them.
_FORMATS = {"F64": (8, 0x7FF0), "F32": (4, 0x7F80), "BF16": (2, 0x7F80), "F16": (2, 0x7C00)}


def refuse_nonfinite(directory: Path) -> None:
    """InvalidInput, naming the tensor, if a weight in `directory` is not finite. Blocking: reads all files.

    The headers must have been checked (shared.weights.tensor_shapes). Types of 8 bits or fewer are not checked.
    """
    for path in sorted(directory.glob("*.safetensors")):
        for name, dtype, start, end in _tensors(path):
            if dtype in _FORMATS and any(has_nonfinite(chunk, dtype) for chunk in _chunks(path, start, end)):
                raise InvalidInput(f"{path}: tensor {name!r} holds NaN or infinity: the learner has diverged")


def has_nonfinite(data: bytes, dtype: str) -> bool:
    """Whether a number in `data` has all exponent bits set, as NaN and infinity do."""
    num_bytes, exponent = _FORMATS[dtype]
    high, second = data[num_bytes - 1 :: num_bytes], data[num_bytes - 2 :: num_bytes]
    # the highest byte alone clears nearly every chunk, and searching for it is fast
    if not any(byte in high for byte in range(256) if byte & exponent >> 8 == exponent >> 8):
        return False
    return any((a << 8 | b) & exponent == exponent for a, b in zip(high, second, strict=True))


def _tensors(path: Path) -> Iterator[tuple[str, str, int, int]]:
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(num_bytes))
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name, entry["dtype"], _LENGTH_BYTES + num_bytes + start, _LENGTH_BYTES + num_bytes + end


def _chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while (remaining := end - file.tell()) > 0 and (chunk := file.read(min(_CHUNK_BYTES, remaining))):
            yield chunk
