"""The client between services: deadlines, and problems that become errors again."""

import asyncio
import time

import httpx
import pytest

from shared.errors import Conflict, IbtpoError, InvalidInput, Overloaded, TooLarge, Unauthorized, Unavailable
from shared.runtime.client import call_deadline, http_client, raise_for_error
from shared.runtime.http_errors import error_response
from tests.runtime.small_service import TOKEN, client_of, small_app


@pytest.mark.parametrize("kind", [InvalidInput, Unauthorized, Conflict, TooLarge, Overloaded, Unavailable])
def test_an_error_survives_the_journey(kind: type[IbtpoError]) -> None:
    answer = error_response(kind("the value is 7; do otherwise"))
    response = httpx.Response(
        answer.status_code,
        content=bytes(answer.body),
        headers=answer.headers,
        request=httpx.Request("GET", "http://a:1/b"),
    )
    with pytest.raises(kind, match="the value is 7; do otherwise") as caught:
        raise_for_error(response)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, b"<html>", InvalidInput),
        (404, b"", InvalidInput),
        (500, b'{"detail": 3}', IbtpoError),
        (502, b"\xff", Unavailable),
        (504, b"[]", Unavailable),
    ],
)
def test_answers_of_strangers_become_errors_too(status: int, content: bytes, kind: type[IbtpoError]) -> None:
    response = httpx.Response(status, content=content, request=httpx.Request("GET", "http://a:1/b"))
    with pytest.raises(kind) as caught:
        raise_for_error(response)
    assert type(caught.value) is kind
    assert f"{status} from a:1/b" in str(caught.value)


def test_a_success_raises_nothing() -> None:
    raise_for_error(httpx.Response(204))


async def test_the_token_travels() -> None:
    async with client_of(small_app(token=TOKEN), TOKEN) as client:
        raise_for_error(await client.post("/v1/orders", json={"count": 1}))
    async with client_of(small_app(token=TOKEN)) as client:
        with pytest.raises(Unauthorized, match="Authorization: Bearer"):
            raise_for_error(await client.post("/v1/orders", json={"count": 1}))


async def test_a_call_has_a_deadline() -> None:
    async with client_of(small_app()) as client:
        start = time.monotonic()
        with pytest.raises(Unavailable, match=r"the small service did not answer within 0\.2 s"):
            async with call_deadline("the small service", 0.2):
                await client.get("/v1/slow/60000")
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://host:port/", "host"])
async def test_nobody_there_is_unavailable(url: str) -> None:
    async with http_client(None, 2.0) as client:
        with pytest.raises(Unavailable, match="the verifier cannot be reached"):
            async with call_deadline("the verifier", 2.0):
                await client.get(url)


async def test_a_peer_that_accepts_and_says_nothing_does_not_hang_the_caller() -> None:
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server, http_client(None, 0.2) as client:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable):
            async with call_deadline("a mute service", 5.0):
                await client.get(f"http://127.0.0.1:{port}/")
        await asyncio.wait_for(left.wait(), 5)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    for direct in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(direct)
    async with client_of(small_app()) as client:
        assert (await client.get("/healthz")).is_success
