"""Files over HTTP, on real sockets and both event loops: each byte as it was, ranges, readers that leave or sleep."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from shared.runtime import streamed
from shared.runtime.connections import ConnectionLimits
from shared.runtime.serve import open_listener, serve_in_background
from shared.runtime.streamed import FileAnswer, FileBody, FileSlice, Part, cut, parse_range
from shared.runtime.zero_copy import NUM_THREADS, ZERO_COPY_SEND
from tests.loops import on_both_loops
from tests.runtime.small_service import small_app
from tests.waiting import wait_until_async

LARGE = 48 << 20
"""More than the buffers of both sockets hold."""
GET = b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\n"


def num_descriptors() -> int:
    """Of sockets, and of the large file."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(name.startswith("socket:") or name.endswith("/large") for name in names)


class Files:
    """What the answers of a test send, and how many are being sent."""

    def __init__(self, directory: Path) -> None:
        self.parts: Sequence[Part] = ()
        self.num_held = self.num_sent = 0
        self._directory = directory

    def write(self, name: str, content: bytes) -> FileSlice:
        path = self._directory / name
        path.write_bytes(content)
        return FileSlice(path, 0, len(content))

    def write_large(self) -> FileSlice:
        """Of holes: what is in it does not matter."""
        path = self._directory / "large"
        path.touch()
        os.truncate(path, LARGE)
        return FileSlice(path, 0, LARGE)

    def content(self) -> bytes:
        return b"".join(
            part if isinstance(part, bytes) else part.path.read_bytes()[part.offset :][: part.num_bytes]
            for part in self.parts
        )

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[FileBody]:
        self.num_held += 1
        try:
            yield FileBody(self.parts, "a1", {"X-Kind": "test"}, self._count)
        finally:
            self.num_held -= 1

    def _count(self, num_bytes: int) -> None:
        self.num_sent += num_bytes

    def app(self) -> FastAPI:
        router = APIRouter()

        @router.api_route("/v1/files", methods=["GET", "HEAD"])
        async def files() -> FileAnswer:
            return FileAnswer(self.hold(), "application/octet-stream")

        return small_app(router=router)

    @asynccontextmanager
    async def serve(self, unread_seconds: float = 60.0) -> AsyncIterator[str]:
        limits = ConnectionLimits(unread_seconds=unread_seconds)
        async with serve_in_background(self.app(), open_listener("127.0.0.1", 0, None), limits=limits) as url:
            yield url


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def mixed(files: Files) -> Files:
    """Bytes and slices, small and large, at odd offsets, and empty ones."""
    large, small = files.write("weights", os.urandom(3_000_001)), files.write("config", os.urandom(700))
    files.parts = [
        b"head",
        FileSlice(large.path, 5, 1_234_567),
        small,
        b"",
        FileSlice(small.path, 7, 0),
        FileSlice(large.path, 1_234_572, 1_765_429),
        b"tail",
    ]
    return files


async def open_raw(url: str, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    writer.write(request)
    return reader, writer


@on_both_loops
async def test_every_byte_comes_as_it_was_and_the_connection_lives_on(mixed: Files) -> None:
    content = mixed.content()
    async with mixed.serve() as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(3):
            answer = await client.get("/v1/files")
            assert (answer.status_code, answer.content == content) == (200, True)
        assert answer.headers["ETag"] == '"a1"'
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["X-Kind"] == "test"
        assert (await client.get("/healthz")).status_code == 200


@on_both_loops
async def test_a_range_brings_just_its_bytes(mixed: Files) -> None:
    content = mixed.content()
    end = len(content)
    async with mixed.serve() as url, httpx.AsyncClient(base_url=url) as client:
        for asked, first, stop in (
            ("bytes=0-", 0, end),
            ("bytes=3-4", 3, 5),
            ("bytes=4-4", 4, 5),
            ("bytes=1234570-1234573", 1_234_570, 1_234_574),
            ("bytes=1000000-99999999", 1_000_000, end),
            ("Bytes=-5", end - 5, end),
            ("bytes=-99999999", 0, end),
        ):
            answer = await client.get("/v1/files", headers={"Range": asked, "If-Range": '"a1"'})
            assert (answer.status_code, answer.headers["Content-Range"]) == (206, f"bytes {first}-{stop - 1}/{end}")
            assert answer.content == content[first:stop]


async def test_what_is_no_range_of_these_bytes_brings_all_and_one_beyond_the_end_nothing(mixed: Files) -> None:
    total = len(mixed.content())
    async with mixed.serve() as url, httpx.AsyncClient(base_url=url) as client:
        for headers in (
            {"Range": "bytes=5-", "If-Range": '"other"'},
            {"Range": "bytes=5-", "If-Range": 'W/"a1"'},
            {"Range": "bytes=5-", "If-Range": "Mon, 30 Nov 2026 00:00:00 GMT"},
            {"Range": "bytes=9-5"},
            {"Range": "bytes=1-2,5-6"},
            {"Range": "lines=1-2"},
            {"Range": "bytes=٣-"},
        ):
            answer = await client.get("/v1/files", headers={k: v.encode() for k, v in headers.items()})
            assert (answer.status_code, len(answer.content)) == (200, total), headers
        beyond = await client.get("/v1/files", headers={"Range": f"bytes={total}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{total}")
        assert beyond.headers["Content-Type"] == "application/problem+json"
        head = await client.head("/v1/files", headers={"Range": "bytes=5-"})
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(total), b"")
        assert mixed.num_held == 0


@given(lengths=st.lists(st.integers(0, 9), max_size=6), first=st.integers(0, 60), last=st.none() | st.integers(0, 60))
def test_ranges_are_cut_as_slices_are(lengths: list[int], first: int, last: int | None) -> None:
    data = bytes(range(sum(lengths)))
    parts: list[Part] = []
    for index, num_bytes in enumerate(lengths):
        start = sum(lengths[:index])
        parts.append(data[start : start + num_bytes] if index % 2 else FileSlice(Path("f"), start, num_bytes))
    wanted = parse_range(f"bytes={first}-{'' if last is None else last}", len(data))
    if last is not None and last < first:
        assert wanted is None
        return
    assert wanted is not None
    expected = data[first:] if last is None else data[first : last + 1]
    found = [p if isinstance(p, bytes) else data[p.offset : p.offset + p.num_bytes] for p in cut(parts, wanted)]
    assert (b"".join(found), len(wanted)) == (expected, len(expected))
    assert all(found)


@on_both_loops
async def test_requests_sent_ahead_are_answered_in_their_order(mixed: Files) -> None:
    content = mixed.content()
    async with mixed.serve() as url:
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        reader, writer = await open_raw(url, (GET + b"\r\n") * 3 + last)
        answers = await reader.read()
        writer.close()
    assert answers.count(content) == 3
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert answers.index(b'{"service"') > answers.rindex(content)


@on_both_loops
async def test_a_reader_that_takes_nothing_is_cut_off_and_one_that_leaves_is_let_go(files: Files) -> None:
    files.parts = [b"head", files.write_large()]
    async with files.serve(unread_seconds=0.3) as url:
        before = num_descriptors()
        _, asleep = await open_raw(url, GET + b"\r\n")
        reader, leaving = await open_raw(url, GET + b"\r\n")
        await reader.readexactly(100_000)
        assert files.num_held == 2
        leaving.transport.abort()
        await wait_until_async(lambda: files.num_held == 0)
        asleep.close()
        await wait_until_async(lambda: num_descriptors() <= before)


@on_both_loops
async def test_a_reader_that_dribbles_holds_nothing_for_ever(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "_PAUSES_SECONDS", 0.3)
    monkeypatch.setattr(streamed, "_SLOWEST_BYTES_PER_SECOND", 1 << 40)
    files.parts = [files.write_large()]
    async with files.serve() as url:
        reader, writer = await open_raw(url, GET + b"\r\n")

        async def is_let_go() -> bool:
            await reader.read(100)
            return files.num_held == 0

        await reader.readuntil(b"\r\n\r\n")
        await wait_until_async(is_let_go)
        writer.close()


@on_both_loops
async def test_what_a_connection_took_is_counted(mixed: Files) -> None:
    total = len(mixed.content())
    async with mixed.serve() as url, httpx.AsyncClient(base_url=url) as client:
        await client.get("/v1/files")
        await client.get("/v1/files", headers={"Range": "bytes=1000000-"})
        await client.head("/v1/files")
        assert mixed.num_sent == total + total - 1_000_000
        mixed.parts, mixed.num_sent = [mixed.write_large()], 0
        reader, leaving = await open_raw(url, GET + b"\r\n")
        await reader.readexactly(100_000)
        leaving.transport.abort()
        await wait_until_async(lambda: mixed.num_held == 0 and mixed.num_sent > 99_000)
        assert mixed.num_sent < LARGE


@on_both_loops
async def test_slow_readers_hold_no_thread_that_others_need(files: Files) -> None:
    files.parts = [files.write_large()]
    async with files.serve() as url:
        slow = [(await open_raw(url, GET + b"\r\n"))[1] for _ in range(3 * NUM_THREADS)]
        await wait_until_async(lambda: files.num_held == len(slow))
        reader, fast = await open_raw(url, GET + b"Connection: close\r\n\r\n")
        async with asyncio.timeout(20):
            num_bytes = sum([len(piece) async for piece in pieces(reader)])
        assert num_bytes > LARGE
        for writer in (*slow, fast):
            writer.close()
        await wait_until_async(lambda: files.num_held == 0)


async def pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(1 << 20):
        yield piece


@on_both_loops
async def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(files: Files) -> None:
    large = files.write_large()
    files.parts = [large, b"tail"]
    async with files.serve() as url:
        reader, writer = await open_raw(url, GET + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % (LARGE + 4) in head.lower()
        os.truncate(large.path, LARGE // 2 + 1)
        rest = b"".join([piece async for piece in pieces(reader)])
        writer.close()
        assert len(rest) <= LARGE // 2 + 1
        assert not rest.endswith(b"tail")


async def test_a_file_that_is_short_or_missing_before_the_first_byte_is_an_error(files: Files) -> None:
    here = files.write("weights", b"1234")
    async with files.serve() as url, httpx.AsyncClient(base_url=url) as client:
        for part in (FileSlice(here.path, 1, 4), FileSlice(here.path.with_name("gone"), 0, 1)):
            files.parts = [part]
            answer = await client.get("/v1/files")
            assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
        assert files.num_held == 0


@on_both_loops
async def test_a_service_that_ends_waits_for_no_reader(files: Files) -> None:
    files.parts = [files.write_large()]
    before = num_descriptors()
    async with asyncio.timeout(8):
        async with files.serve() as url:
            reader, writer = await open_raw(url, GET + b"\r\n")
            await reader.readexactly(1000)
    assert files.num_held == 0
    writer.close()
    await wait_until_async(lambda: num_descriptors() <= before)


async def test_a_server_without_the_extension_gets_the_same_bytes(mixed: Files) -> None:
    transport = httpx.ASGITransport(mixed.app())
    async with httpx.AsyncClient(base_url="http://127.0.0.1", transport=transport) as client:
        assert (await client.get("/v1/files")).content == mixed.content()
        part = await client.get("/v1/files", headers={"Range": "bytes=1000000-2500000"})
        assert (part.status_code, part.content) == (206, mixed.content()[1_000_000:2_500_001])
        assert (await client.head("/v1/files")).content == b""


class Sends(Response):
    """Sends what a test says, after the start of an answer."""

    def __init__(self, messages: Callable[[], Sequence[dict[str, object]]], headers: dict[str, str]) -> None:
        super().__init__()
        self._messages = messages
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert ZERO_COPY_SEND in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        for message in self._messages():
            await send(message)


@asynccontextmanager
async def sending(
    messages: Callable[[], Sequence[dict[str, object]]], headers: dict[str, str]
) -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()
    router.get("/v1/messages")(lambda: Sends(messages, headers))
    app = small_app(router=router)
    async with (
        serve_in_background(app, open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


@pytest.mark.parametrize("headers", [{"Content-Length": "24"}, {}], ids=["with a length", "in chunks"])
@on_both_loops
async def test_without_offset_and_count_a_file_goes_on_from_where_it_is(files: Files, headers: dict[str, str]) -> None:
    path = files.write("digits", b"0123456789").path
    with path.open("rb", buffering=0) as file:

        def messages() -> Sequence[dict[str, object]]:
            file.seek(2)
            return [
                {"type": "http.response.body", "body": b"<", "more_body": True},
                {"type": ZERO_COPY_SEND, "file": file, "count": 3, "more_body": True},
                {"type": ZERO_COPY_SEND, "file": file.fileno(), "more_body": True},
                {"type": ZERO_COPY_SEND, "file": file, "more_body": True},
                {"type": "http.response.body", "body": b">", "more_body": True},
                {"type": ZERO_COPY_SEND, "file": file, "offset": 0, "more_body": True},
                {"type": ZERO_COPY_SEND, "file": file, "offset": 6},
            ]

        async with sending(messages, headers) as client:
            for _ in range(2):
                answer = await client.get("/v1/messages")
                assert answer.content == b"<23456789>01234567896789"


@pytest.mark.parametrize("length", [9, 11])
async def test_no_answer_gets_a_wrong_length(files: Files, length: int) -> None:
    with files.write("digits", b"0123456789").path.open("rb") as file:
        message = {"type": ZERO_COPY_SEND, "file": file, "offset": 0}
        async with sending(lambda: [message], {"Content-Length": str(length)}) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/v1/messages")


@on_both_loops
async def test_a_file_that_the_kernel_cannot_send_is_read() -> None:
    with open("/proc/self/cmdline", "rb") as file:
        content = file.read()
        message = {"type": ZERO_COPY_SEND, "file": file, "offset": 1, "count": len(content) - 1}
        async with sending(lambda: [message], {"Content-Length": str(len(content) - 1)}) as client:
            assert (await client.get("/v1/messages")).content == content[1:]
