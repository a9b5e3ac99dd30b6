"""A transfer on the wire: magic, length of the head, head, body. How a full one is sent, and how slowly it may come."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from shared.errors import InvalidInput, Unavailable
from shared.protocol.weights import Manifest, Transfer

MAGIC = b"IBTPOW02"
MAX_HEAD_BYTES = 1 << 24
"""Of the JSON that says what comes: some 250 bytes a tensor."""
LENGTH_BYTES = 8
START_BYTES = len(MAGIC) + LENGTH_BYTES
_CHUNK_BYTES = 1 << 20
PAUSES_SECONDS = 20.0
_SLOWEST_BYTES_PER_SECOND = 1 << 20


def frame(transfer: Transfer) -> bytes:
    """What comes before the body. InvalidInput where no receiver would take so much."""
    head = transfer.model_dump_json(exclude_defaults=True).encode()
    if len(head) > MAX_HEAD_BYTES:
        raise InvalidInput(f"a bundle of {len(transfer.manifest.files)} files has too many tensors to be described")
    return MAGIC + len(head).to_bytes(LENGTH_BYTES, "little") + head


def full_transfer(manifest: Manifest) -> Transfer:
    """Of all bytes of a bundle."""
    return Transfer(manifest=manifest, num_bytes=manifest.num_bytes)


async def stream_bundle(manifest: Manifest, directory: Path) -> AsyncGenerator[bytes, None]:
    """The framed bundle, read from disk as it is sent; InvalidInput when a file is shorter than its manifest says.

    No file stays open between two chunks: whoever takes them may end at any moment, also while one is being opened.
    """
    yield frame(full_transfer(manifest))
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
    return len(frame(full_transfer(manifest))) + manifest.num_bytes


async def paced(stream: AsyncIterator[bytes], pauses_seconds: float = PAUSES_SECONDS) -> AsyncIterator[bytes]:
    """The chunks of a stream that may not be slower than 1 MiB a second for long, as whoever receives takes one bundle
    at a time: all waits for chunks together take `pauses_seconds`, and a second for each MiB that came. Unavailable
    beyond."""
    waited_seconds, num_bytes = 0.0, 0
    while True:
        allowed_seconds = pauses_seconds + num_bytes / _SLOWEST_BYTES_PER_SECOND
        started = time.monotonic()
        try:
            async with asyncio.timeout(allowed_seconds - waited_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Unavailable(
                f"the bundle comes too slowly: {num_bytes} bytes in {allowed_seconds:.0f} s of waiting; "
                "another sender has its turn"
            ) from error
        waited_seconds += time.monotonic() - started
        num_bytes += len(chunk)
        yield chunk
