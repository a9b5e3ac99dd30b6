"""Apps that answer as a test needs, over real HTTP, and a client of each."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.serve import open_listener, serve_in_background

TOKEN = "a-token-of-32-characters-or-more"

Served = tuple[httpx.AsyncClient, str]
Serve = Callable[[APIRouter], AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve() -> Serve:
    """Serves a router behind TOKEN; yields an HTTP client that has the token, and the URL."""

    @asynccontextmanager
    async def serve(router: APIRouter) -> AsyncIterator[Served]:
        app = create_app(
            "service",
            router,
            lifespan=None,
            ready=lambda: None,
            registry=CollectorRegistry(),
            token=TOKEN,
            max_body_bytes=1 << 20,
        )
        async with (
            serve_in_background(app, open_listener("127.0.0.1", 0, TOKEN)) as url,
            http_client(TOKEN, 30.0) as http,
        ):
            yield http, url

    return serve
