"""A streamed answer holds its resource until the last byte, and answers an error before the first one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from shared.errors import Unavailable
from shared.runtime.app import create_app
from shared.runtime.streamed import StreamedAnswer
from tests.runtime.small_service import client_of
from tests.waiting import wait_until_async


class Resource:
    """What the answers of this test hold: opened and released, and whether it can be opened at all."""

    def __init__(self) -> None:
        self.is_held = False
        self.is_missing = False
        self.go_on = asyncio.Event()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[AsyncIterator[bytes]]:
        if self.is_missing:
            raise Unavailable("no weights yet")
        self.is_held = True
        try:
            yield self._chunks()
        finally:
            self.is_held = False

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"first "
        await self.go_on.wait()
        yield b"last"


@pytest.fixture
async def resource() -> Resource:
    return Resource()


@pytest.fixture
async def client(resource: Resource) -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()
    router.get("/v1/bytes")(lambda: StreamedAnswer(resource.hold(), "application/octet-stream", {"X-Kind": "test"}))
    app = create_app(
        "small",
        router,
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token=None,
        max_body_bytes=1000,
    )
    async with client_of(app) as client:
        yield client


async def test_the_resource_is_held_until_the_last_byte(client: httpx.AsyncClient, resource: Resource) -> None:
    async with client.stream("GET", "/v1/bytes") as response:
        assert response.headers["X-Kind"] == "test"
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first "
        assert resource.is_held
        resource.go_on.set()
        assert [chunk async for chunk in chunks] == [b"last"]
    await wait_until_async(lambda: not resource.is_held)


async def test_the_resource_is_released_when_the_caller_leaves(client: httpx.AsyncClient, resource: Resource) -> None:
    async with client.stream("GET", "/v1/bytes") as response:
        await anext(response.aiter_bytes())
        assert resource.is_held
    await wait_until_async(lambda: not resource.is_held)


async def test_an_error_before_the_first_byte_gets_its_own_answer(
    client: httpx.AsyncClient, resource: Resource
) -> None:
    resource.is_missing = True
    response = await client.get("/v1/bytes")
    assert response.status_code == 503
    assert response.json()["detail"] == "no weights yet"
