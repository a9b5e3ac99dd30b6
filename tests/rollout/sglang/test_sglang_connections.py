"""The SGLang engine's HTTP connections against a raw server: what is reused, and what becomes Unreachable."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from services.rollout.engines.sglang.connections import Connections
from shared.errors import Unreachable
from tests.waiting import wait_until_async

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawServer:
    """Answers every request with `answer`, and closes the connection after it if `closes`."""

    def __init__(self, answer: bytes, closes: bool) -> None:
        self.answer = answer
        self.closes = closes
        self.url = ""
        self.num_connections = 0
        self.num_requests = 0
        self.num_ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while await reader.read(1 << 16):
                self.num_requests += 1
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        finally:
            writer.close()
            await writer.wait_closed()
            self.num_ended += 1


Serve = Callable[..., AbstractAsyncContextManager[tuple[RawServer, Connections]]]


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serve(answer: bytes = ANSWER, *, closes: bool = False) -> AsyncIterator[tuple[RawServer, Connections]]:
        raw = RawServer(answer, closes)
        server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
        connections = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with server:
            yield raw, connections
            connections.close()
            await wait_until_async(lambda: raw.num_ended == raw.num_connections)

    return serve


async def test_a_connection_is_reused(serve: Serve) -> None:
    async with serve() as (raw, connections):
        for _ in range(3):
            answer = await connections.request("GET", "/")
            assert (answer.status, answer.body, answer.is_success) == (200, b"ok", True)
        assert (raw.num_connections, raw.num_requests) == (1, 3)
        await asyncio.gather(*(connections.request("POST", "/", b"{}") for _ in range(3)))
        assert raw.num_connections == 3


async def test_a_connection_that_the_server_closed_is_not_reused(serve: Serve) -> None:
    async with serve(closes=True) as (raw, connections):
        for number in range(1, 4):
            assert (await connections.request("GET", "/")).is_success
            await wait_until_async(lambda number=number: raw.num_ended == number)
            for _ in range(5):  # the client's side of the loop reads the end
                await asyncio.sleep(0)
        assert raw.num_connections == 3


async def test_the_body_is_given_on_as_it_arrives(serve: Serve) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    pieces: list[bytes] = []
    async with serve(chunked) as (_, connections):
        assert (await connections.request("GET", "/", on_piece=pieces.append)).body == b"abc"
    assert b"".join(pieces) == b"abc"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection before it had answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "closed the connection before it had answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no HTTP"),
    ],
)
async def test_an_answer_that_is_not_whole_is_unreachable(serve: Serve, answer: bytes, reason: str) -> None:
    async with serve(answer, closes=True) as (_, connections):
        with pytest.raises(Unreachable, match=reason):
            await connections.request("GET", "/")


async def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"nothing answers at 127\.0\.0\.1:9"):
        await Connections("http://127.0.0.1:9").request("GET", "/")


async def test_closing_ends_requests_in_flight_and_cancelling_ends_one(serve: Serve) -> None:
    async with serve(b"") as (raw, connections):
        cancelled, closed = (asyncio.create_task(connections.request("GET", "/")) for _ in range(2))
        await wait_until_async(lambda: raw.num_requests == 2)
        cancelled.cancel()
        await wait_until_async(lambda: raw.num_ended == 1)
        connections.close()
        with pytest.raises(Unreachable):
            await closed
