"""A policy bundle on the disk, checked before SGLang loads it, without torch."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from shared.errors import InvalidInput
from shared.tree.draw import WeightVersion
from shared.weights import TensorShape, read_json_object, read_manifest, require_same_tensors, tensor_shapes

_LENGTH_BYTES = 8
_CHUNK_BYTES = 1 << 20
# Of each little-endian float: its size in bytes, and the exponent's bits within the two highest of them.
_FORMATS = {"F64": (8, 0x7FF0), "F32": (4, 0x7F80), "BF16": (2, 0x7F80), "F16": (2, 0x7C00)}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is fit to be served."""

    directory: Path
    version: WeightVersion
    vocab_size: int
    shapes: Mapping[str, TensorShape]

    @classmethod
    def read(cls, directory: Path, version: WeightVersion) -> "Bundle":
        """InvalidInput for a bundle that no server should load. Blocking: reads all weights once."""
        directory = directory.resolve()
        config = read_json_object(directory / "config.json")
        text_config = config.get("text_config", config)
        vocab_size = text_config.get("vocab_size") if isinstance(text_config, dict) else None
        if not isinstance(vocab_size, int) or vocab_size < 1:
            raise InvalidInput(f"{directory / 'config.json'} names no vocab_size")
        shapes = tensor_shapes(directory)
        _refuse_nonfinite(directory)
        return cls(directory, version, vocab_size, shapes)

    def check_successor(self, new: "Bundle") -> None:
        """InvalidInput unless `new` is the same model with other weights: SGLang reads the configuration only when it
        starts, and its behaviour with other shapes is undefined."""
        if new.vocab_size != self.vocab_size:
            raise InvalidInput(
                f"vocab_size is {new.vocab_size}, that of the served model {self.vocab_size}: a run has one model"
            )
        require_same_tensors(self.shapes, new.shapes)

    def digests(self) -> dict[str, str]:
        """The xxh3-128 of each tensor's bytes: as in the manifest by which they were verified, or where none is of
        this version, computed. Blocking: reads all weights then."""
        with suppress(InvalidInput):
            manifest = read_manifest(self.directory)
            if manifest.version == self.version:
                return {piece.tensor: piece.xxh3 for file in manifest.files for piece in file.pieces if piece.tensor}
        return dict(self._digests(xxhash.xxh3_128, self.shapes, as_float32=False))

    def sha256_of(self, names: Collection[str], *, as_float32: bool) -> dict[str, str]:
        """The sha256 of some tensors' bytes; of bfloat16 ones, if wanted, as float32 has them. Blocking."""
        return dict(self._digests(hashlib.sha256, names, as_float32=as_float32))

    def _digests(
        self, start: Callable[[], Any], names: Collection[str], *, as_float32: bool
    ) -> Iterator[tuple[str, str]]:
        for path in sorted(self.directory.glob("*.safetensors")):
            for name, dtype, begin, end in _tensors(path):
                if name in names:
                    digest = start()
                    for chunk in _chunks(path, begin, end):
                        digest.update(_widen(chunk) if as_float32 and dtype == "BF16" else chunk)
                    yield name, digest.hexdigest()


def _refuse_nonfinite(directory: Path) -> None:
    """InvalidInput, naming the tensor, if a weight is not finite. Types of 8 bits or fewer are not checked."""
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


def _widen(bfloat16: bytes) -> bytes:
    """The same numbers as float32, whose upper half bfloat16 is."""
    return (np.frombuffer(bfloat16, "<u2").astype("<u4") << 16).tobytes()


def _tensors(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Name, type, and where the bytes begin and end. The header must have been checked (tensor_shapes)."""
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
