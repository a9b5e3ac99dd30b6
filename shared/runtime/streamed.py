"""Answers that hold a resource while they are sent: a stream of bytes, or ranges of files."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from shared.runtime.http_errors import problem_details
from shared.runtime.logs import event_logger
from shared.runtime.zero_copy import ZERO_COPY_SEND

log = event_logger(__name__)
_PIECE_BYTES = 1 << 20
_PAUSES_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 1 << 19
"""Half of what a download here asks of its service: a reader writes its bytes to a disk, too."""
_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII | re.IGNORECASE)


class StreamedAnswer(StreamingResponse):
    """Streams what the context `held` yields: entered before the first byte, so that its errors still get an answer of
    their own, and left after the last byte, or when the caller leaves."""

    def __init__(
        self,
        held: AbstractAsyncContextManager[AsyncIterator[bytes]],
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(content=(), media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held as self.body_iterator:
            await super().__call__(scope, receive, send)


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`num_bytes` of a file, from `offset` on."""

    path: Path
    offset: int
    num_bytes: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.num_bytes < 0:
            raise ValueError(f"{self.num_bytes} bytes from {self.offset} of {self.path}: neither may be negative")


Part = bytes | FileSlice


@dataclass(frozen=True, slots=True)
class FileBody:
    """What a FileAnswer sends: `parts`, one after the other. `etag` says which bytes they are. `on_sent` is told how
    many of them the connection took, of an answer that is cut off too; perhaps in a thread."""

    parts: Sequence[Part]
    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)
    on_sent: Callable[[int], None] | None = None


class FileAnswer(StreamingResponse):
    """Sends the bytes and the ranges of files that the context `held` yields, or the range of them that is asked for;
    the kernel sends the files where the server offers it (shared.runtime.zero_copy).

    Whoever has the first k bytes asks for `Range: bytes=k-` with their ETag in `If-Range`, and gets the rest, or all
    where they have changed. `held` is entered before the first byte, so that its errors still get an answer of their
    own, and left after the last one, or when the caller leaves. It is held for a minute and two seconds for each MiB:
    a slower reader loses its connection. So does one of a file that turns out to be shorter.
    """

    def __init__(
        self,
        held: AbstractAsyncContextManager[FileBody],
        media_type: str,
    ) -> None:
        super().__init__(content=(), media_type=media_type, headers={"Accept-Ranges": "bytes"})
        self._held = held
        self._parts: Sequence[Part] = ()
        self._on_sent: Callable[[int], None] = _ignore
        self._has_body = self._has_zero_copy = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._has_body = scope["method"] != "HEAD"
        self._has_zero_copy = ZERO_COPY_SEND in scope.get("extensions", {})
        async with self._held as body:
            parts: Sequence[Part] = body.parts
            self.headers.update({**body.headers, "ETag": f'"{body.etag}"'})
            await asyncio.to_thread(_check_files, parts)
            total = sum(map(length_of, parts))
            if (wanted := self._asked_range(scope, total)) is not None:
                if not wanted:
                    await _beyond_the_end(total)(scope, receive, send)
                    return
                self.status_code = HTTPStatus.PARTIAL_CONTENT
                self.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{total}"
                parts = tuple(cut(parts, wanted))
            self._parts, self._on_sent = parts, body.on_sent or _ignore
            num_bytes = sum(map(length_of, parts))
            self.headers["Content-Length"] = str(num_bytes)
            seconds = _PAUSES_SECONDS + num_bytes / _SLOWEST_BYTES_PER_SECOND
            try:
                async with asyncio.timeout(seconds):
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                log.warning("reader_too_slow", num_bytes=num_bytes, within_seconds=round(seconds, 1))

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts if self._has_body else ():
            if isinstance(part, bytes):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                self._on_sent(len(part))
            elif self._has_zero_copy:
                await _send_file(part, send, self._on_sent)
            else:
                await _send_pieces(part, send, self._on_sent)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _asked_range(self, scope: Scope, total: int) -> range | None:
        headers = Headers(scope=scope)
        if scope["method"] != "GET" or headers.get("If-Range", self.headers["ETag"]) != self.headers["ETag"]:
            return None
        return parse_range(headers.get("Range", ""), total)


def length_of(part: Part) -> int:
    """In bytes."""
    return len(part) if isinstance(part, bytes) else part.num_bytes


def cut(parts: Sequence[Part], wanted: range) -> Iterator[Part]:
    """The bytes `wanted` of the parts in a row, as parts."""
    end = 0
    for part in parts:
        start, end = end, end + length_of(part)
        first, last = max(start, wanted.start) - start, min(end, wanted.stop) - start
        if first >= last:
            continue
        if isinstance(part, bytes):
            yield part[first:last]
        else:
            yield FileSlice(part.path, part.offset + first, last - first)


def parse_range(header: str, total: int) -> range | None:
    """The bytes that a header `Range` asks for, of `total`; empty when they begin after the end. None for a header that
    counts as absent: several ranges, another unit, nonsense."""
    match = _ONE_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return range(max(0, total - int(suffix)), total)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, total) if last else total)


def _ignore(num_bytes: int) -> None:
    """For whoever does not count."""


def _beyond_the_end(total: int) -> Response:
    return problem_details(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        f"the range holds none of the {total} bytes; ask for an earlier one",
        headers={"Content-Range": f"bytes */{total}"},
    )


def _check_files(parts: Sequence[Part]) -> None:
    """Before the first byte an error still has an answer of its own."""
    for part in parts:
        if isinstance(part, FileSlice) and (size := part.path.stat().st_size) < part.offset + part.num_bytes:
            raise _ends_early(part.path, part.offset + part.num_bytes - size)


async def _send_file(part: FileSlice, send: Send, on_sent: Callable[[int], None]) -> None:
    with part.path.open("rb") as file:
        span = {"file": file, "offset": part.offset, "count": part.num_bytes}
        await send({"type": ZERO_COPY_SEND, **span, "more_body": True, "on_sent": on_sent})


async def _send_pieces(part: FileSlice, send: Send, on_sent: Callable[[int], None]) -> None:
    end = part.offset + part.num_bytes
    for offset in range(part.offset, end, _PIECE_BYTES):
        piece = await asyncio.to_thread(_read, part.path, offset, min(_PIECE_BYTES, end - offset))
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        on_sent(len(piece))


def _read(path: Path, offset: int, num_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        piece = file.read(num_bytes)
    if len(piece) < num_bytes:
        raise _ends_early(path, num_bytes - len(piece))
    return piece


def _ends_early(path: Path, num_missing: int) -> EOFError:
    return EOFError(f"{path} ends {num_missing} bytes before what is to be sent of it")
