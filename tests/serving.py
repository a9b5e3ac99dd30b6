"""Serves the routes of a test over real HTTP, as a service serves its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from shared.runtime.app import create_app
from shared.runtime.serve import open_listener, serve_in_background


@asynccontextmanager
async def serve_router(
    router: APIRouter, token: str | None = None, *, max_body_bytes: int = 1 << 20
) -> AsyncIterator[str]:
    """Serves on loopback while the block runs; yields the URL."""
    app = create_app(
        "test",
        router,
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token=token,
        max_body_bytes=max_body_bytes,
    )
    async with serve_in_background(app, open_listener("127.0.0.1", 0, token)) as url:
        yield url
