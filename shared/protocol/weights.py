"""How a policy bundle is described, and how it travels."""

import re
from enum import StrEnum
from math import prod
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from shared.protocol.message import Message
from shared.tree.draw import WeightVersion

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
MAX_PIECES = 1 << 16
_WIDTHS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 2),
}
"""Bytes of a value, by the name that safetensors has for its type; all others are taken as bytes."""
ContentHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _check_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"a bundle's file has a plain name, not {name!r}")
    return name


class Piece(Message):
    """A part of a file: one tensor, what is before the tensors of a safetensors file, or all of another file. `xxh3` is
    the 128-bit XXH3 of its bytes; `dtype` as safetensors names it."""

    num_bytes: int = Field(ge=0, lt=1 << 53)
    xxh3: str = Field(pattern=r"^[0-9a-f]{32}$")
    tensor: str = Field("", max_length=512)
    dtype: str = Field("U8", max_length=16)
    shape: tuple[Annotated[int, Field(ge=0)], ...] = Field((), max_length=16)

    @property
    def width(self) -> int:
        """Bytes of one value."""
        return _WIDTHS.get(self.dtype, 1)

    @model_validator(mode="after")
    def _check_size(self) -> "Piece":
        if self.dtype in _WIDTHS and prod(self.shape) * self.width != self.num_bytes:
            raise ValueError(f"tensor {self.tensor!r}, {self.dtype}{list(self.shape)}, has no {self.num_bytes} bytes")
        return self


class BundleFile(Message):
    """One file of a bundle: its pieces, in their order, with nothing between them."""

    name: Annotated[str, AfterValidator(_check_name)]
    pieces: tuple[Piece, ...] = Field(min_length=1, max_length=MAX_PIECES)

    @property
    def num_bytes(self) -> int:
        return sum(piece.num_bytes for piece in self.pieces)


class Manifest(Message):
    """A policy bundle: model configuration, tokenizer, chat template and weights (safetensors), in the layout that
    `transformers` reads. `content_hash` is the sha256 over files and pieces: the identity of every bit."""

    run: str
    version: WeightVersion
    files: tuple[BundleFile, ...] = Field(min_length=1, max_length=256)
    content_hash: ContentHash

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    @property
    def base(self) -> "Base":
        """This bundle as what a delta is taken from."""
        return Base(version=self.version, content_hash=self.content_hash)


class Base(Message):
    """The bundle that a delta changes."""

    version: WeightVersion
    content_hash: ContentHash


class Encoding(StrEnum):
    """How a bundle travels."""

    FULL = "full"
    """Every byte of its files, in the manifest's order."""
    DELTA = "delta"
    """What differs from `base`: blocks (docs/protocol.md), which overwrite values in their order."""


class Transfer(Message):
    """What comes before the `num_bytes` of a bundle's body on the wire."""

    manifest: Manifest
    encoding: Encoding = Encoding.FULL
    base: Base | None = None
    num_bytes: int = Field(ge=0, lt=1 << 53)

    @model_validator(mode="after")
    def _check_encoding(self) -> "Transfer":
        if (self.encoding is Encoding.DELTA) != (self.base is not None):
            raise ValueError("a delta names its base, and nothing else has one")
        if self.num_bytes > self.manifest.num_bytes:
            raise ValueError(f"a delta of {self.num_bytes} bytes is over the {self.manifest.num_bytes} of its bundle")
        if self.encoding is Encoding.FULL and self.num_bytes != self.manifest.num_bytes:
            raise ValueError(f"a full body has the {self.manifest.num_bytes} bytes of its files, not {self.num_bytes}")
        return self


class Offer(Message):
    """The learner tells a replica which weights it may fetch."""

    version: WeightVersion
    content_hash: ContentHash
