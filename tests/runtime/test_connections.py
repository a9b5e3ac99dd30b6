"""Connections of strangers, on real sockets: none holds memory, time or a place that others need."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from shared.runtime.connections import ConnectionLimits
from shared.runtime.serve import open_listener, serve_in_background
from tests.runtime.small_service import small_app
from tests.waiting import wait_until_async

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
PUT = b"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"
CHUNKED = b"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"


def memory_bytes() -> int:
    """What this process has in memory, the service included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 1_000_000)
        await writer.drain()


class Caller:
    """One connection, and what came back on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader

    async def answer(self) -> bytes:
        """All that comes until the service closes the connection; nothing after a reset."""
        try:
            async with asyncio.timeout(10):
                return await self._reader.read()
        except ConnectionResetError:
            return b""

    async def first_line(self) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.readline()


class Service:
    """The small service; its callers are closed at the end."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app = app
        self._port = port
        self._callers: list[Caller] = []

    async def call(self, text: bytes) -> Caller:
        self._callers.append(Caller(*await asyncio.open_connection("127.0.0.1", self._port)))
        self._callers[-1].writer.write(text)
        return self._callers[-1]

    def close(self) -> None:
        for caller in self._callers:
            caller.writer.close()


@asynccontextmanager
async def _serving(limits: ConnectionLimits) -> AsyncIterator[Service]:
    app = small_app()
    async with serve_in_background(app, open_listener("127.0.0.1", 0, None), limits=limits) as url:
        service = Service(app, int(url.rpartition(":")[2]))
        try:
            yield service
        finally:
            service.close()


def serving(**limits: float) -> AbstractAsyncContextManager[Service]:
    return _serving(ConnectionLimits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: " + b"x" * 70_000,
        GET + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        GET + b"X: y\r\n" * 20_000,
        GET + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 70_000,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"x" * 70_000,
    ],
    ids=["one header", "one, complete", "many", "many, complete", "path", "path, complete", "method"],
)
async def test_a_head_over_its_bound_is_refused(head: bytes) -> None:
    async with serving() as service:
        answer = await (await service.call(head)).answer()
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
        assert b"application/problem+json" in answer
        assert (await (await service.call(GET + b"\r\n")).first_line()).startswith(b"HTTP/1.1 200 ")


async def test_an_endless_head_is_not_kept() -> None:
    async with serving() as service:
        caller = await service.call(GET + b"X: ")
        before = memory_bytes()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(caller.writer), 20)
        assert memory_bytes() - before < 30_000_000


@pytest.mark.parametrize("text", [CHUNKED + b"X: " + b"x" * 400_000, CHUNKED[:-3] + b"1;" + b"x" * 400_000])
async def test_what_surrounds_chunks_is_bounded_too(text: bytes) -> None:
    async with serving() as service:
        assert b" 200 " not in await (await service.call(text)).answer()


async def test_a_head_just_under_its_bound_is_answered() -> None:
    async with serving() as service:
        caller = await service.call(GET + b"X: " + b"x" * 60_000 + b"\r\n\r\n")
        assert (await caller.first_line()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("first", [b"", GET + b"\r\n"], ids=["new", "kept alive"])
async def test_a_head_that_dribbles_is_given_up(first: bytes) -> None:
    async with serving(head_seconds=0.3) as service:
        caller = await service.call(first + b"G")
        answering = asyncio.create_task(caller.answer())

        def dribble() -> bool:
            caller.writer.write(b"E")
            return answering.done()

        await wait_until_async(dribble, 10)
        assert b"HTTP/1.1 408 " in answering.result() or b"HTTP/1.1 400 " in answering.result()


async def test_a_connection_without_a_byte_is_closed() -> None:
    async with serving(head_seconds=0.2) as service:
        assert await (await service.call(b"")).answer() == b""


async def test_requests_sent_far_ahead_of_their_answers_end_the_connection() -> None:
    async with serving() as service:
        answer = await (await service.call(b"GET /v1/slow/1 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)).answer()
        assert answer.count(b"HTTP/1.1 200 ") <= 17


async def test_an_answer_that_nobody_reads_ends_its_connection() -> None:
    async with serving(unread_seconds=0.2) as service:
        await service.call(b"GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        drain = service.app.state.drain
        await wait_until_async(lambda: drain.num_requests == 1, 5)
        await wait_until_async(lambda: drain.num_requests == 0, 10)


@pytest.mark.parametrize("half", [b"", b"GET / HT", PUT], ids=["nothing", "half a head", "half a body"])
async def test_however_many_half_sent_requests_there_are_a_probe_gets_in(half: bytes) -> None:
    async with serving(connections=20) as service:
        for _ in range(60):
            await service.call(half)
        for _ in range(5):
            assert (await (await service.call(GET + b"\r\n")).first_line()).startswith(b"HTTP/1.1 200 ")


async def test_where_every_caller_waits_for_its_answer_another_is_refused() -> None:
    async with serving(connections=3) as service:
        slow = [await service.call(b"GET /v1/slow/1000 HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)]
        refused = await (await service.call(GET + b"\r\n")).answer()
        assert refused.startswith(b"HTTP/1.1 503 ")
        for caller in slow:
            assert (await caller.first_line()).startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http_gets_problem_details() -> None:
    async with serving() as service:
        answer = await (await service.call(b"\x16\x03\x01 hello\r\n\r\n")).answer()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"this is not HTTP/1.1" in answer
