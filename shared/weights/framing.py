"""The wire format of a bundle: magic, length of the manifest, manifest, then the files in its order."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from shared.errors import InvalidInput, Unavailable
from shared.protocol.weights import Manifest

MAGIC = b"IBTPOW01"
MAX_MANIFEST_BYTES = 1 << 20
_LENGTH_BYTES = 8
_CHUNK_BYTES = 1 << 20
PAUSES_SECONDS = 20.0
_SLOWEST_BYTES_PER_SECOND = 1 << 20


async def stream_bundle(manifest: Manifest, directory: Path) -> AsyncGenerator[bytes, None]:
    """The framed bundle, read from disk as it is sent; InvalidInput when a file is shorter than its manifest says.

    No file stays open between two chunks: whoever takes them may end at any moment, also while one is being opened.
    """
    header = manifest.model_dump_json().encode()
    yield MAGIC + len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for listed in manifest.files:
        path, sent = directory / listed.name, 0
        while sent < listed.num_bytes:
            chunk = await asyncio.to_thread(_read_chunk, path, sent, min(_CHUNK_BYTES, listed.num_bytes - sent))
            if not chunk:
                raise InvalidInput(f"{path} ends {listed.num_bytes - sent} bytes before its {listed.num_bytes}")
            sent += len(chunk)
            yield chunk


def _read_chunk(path: Path, start: int, count: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(count)


def bundle_length(manifest: Manifest) -> int:
    """The length of the framed bundle in bytes: its Content-Length."""
    header = len(MAGIC) + _LENGTH_BYTES + len(manifest.model_dump_json().encode())
    return header + sum(file.num_bytes for file in manifest.files)


class FrameReader:
    """Reads a framed bundle from chunks of any size; holds at most one chunk and the header.

    Whoever receives takes one bundle at a time, so no sender may be slower than 1 MiB a second for long: all waits for
    chunks together take `pauses_seconds`, and a second for each MiB that came. Unavailable beyond.
    """

    def __init__(self, stream: AsyncIterator[bytes], pauses_seconds: float = PAUSES_SECONDS) -> None:
        self._stream = stream
        self._buffer = b""
        self._pauses_seconds = pauses_seconds
        self._waited_seconds = 0.0
        self._num_bytes = 0

    async def manifest(self) -> Manifest:
        """The manifest in the header; InvalidInput when these bytes are no bundle."""
        start = await self._read(len(MAGIC) + _LENGTH_BYTES, "the header")
        if not start.startswith(MAGIC):
            raise InvalidInput(f"not a weight bundle: it begins with {start[: len(MAGIC)]!r}, not {MAGIC!r}")
        num_bytes = int.from_bytes(start[len(MAGIC) :], "little")
        if not 0 < num_bytes <= MAX_MANIFEST_BYTES:
            raise InvalidInput(f"a manifest of {num_bytes} bytes; it has 1 to {MAX_MANIFEST_BYTES}")
        header = await self._read(num_bytes, "the manifest")
        try:
            return Manifest.model_validate_json(header)
        except ValueError as error:
            raise InvalidInput(f"the manifest cannot be read: {error}") from error

    async def chunks(self, num_bytes: int, what: str) -> AsyncIterator[bytes]:
        """The next `num_bytes` bytes, in chunks as they arrive."""
        remaining = num_bytes
        while remaining:
            chunk = await self._next_chunk(what)
            taken, self._buffer = chunk[:remaining], chunk[remaining:]
            remaining -= len(taken)
            yield taken

    async def end(self) -> None:
        """InvalidInput unless the stream ends here."""
        try:
            while not self._buffer:
                self._buffer = await self._receive_chunk()
        except StopAsyncIteration:
            return
        raise InvalidInput("the bundle has bytes after its last file; it was not framed by its own manifest")

    async def _read(self, num_bytes: int, what: str) -> bytes:
        return b"".join([chunk async for chunk in self.chunks(num_bytes, what)])

    async def _next_chunk(self, what: str) -> bytes:
        """A chunk of at least one byte."""
        while not self._buffer:
            try:
                self._buffer = await self._receive_chunk()
            except StopAsyncIteration:
                raise InvalidInput(f"the bundle ends within {what}; send it again") from None
        return self._buffer

    async def _receive_chunk(self) -> bytes:
        """The next chunk; StopAsyncIteration at the end."""
        allowed_seconds = self._pauses_seconds + self._num_bytes / _SLOWEST_BYTES_PER_SECOND
        started = time.monotonic()
        try:
            async with asyncio.timeout(allowed_seconds - self._waited_seconds):
                chunk = await anext(self._stream)
        except TimeoutError as error:
            raise Unavailable(
                f"the bundle comes too slowly: {self._num_bytes} bytes in {allowed_seconds:.0f} s of waiting; "
                "another sender has its turn"
            ) from error
        self._waited_seconds += time.monotonic() - started
        self._num_bytes += len(chunk)
        return chunk
