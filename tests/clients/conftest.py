"""Routes that answer as a test needs, and an HTTP client of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter

from shared.runtime.client import http_client
from tests.serving import serve_router

TOKEN = "a-token-of-32-characters-or-more"

Served = tuple[httpx.AsyncClient, str]
Serve = Callable[[APIRouter], AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve() -> Serve:
    """Serves a router behind TOKEN; yields an HTTP client that has the token, and the URL."""

    @asynccontextmanager
    async def serve(router: APIRouter) -> AsyncIterator[Served]:
        async with serve_router(router, TOKEN) as url, http_client(TOKEN, 30.0) as http:
            yield http, url

    return serve
