"""Verifiers for tests: in this process, or behind a port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.verifier.config import MathConfig, VerifierConfig
from services.verifier.wiring import VerifierService
from shared.runtime.serve import open_listener, serve_in_background


@asynccontextmanager
async def open_verifier(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a verifier in this process; without math workers unless `settings` say otherwise."""
    service = VerifierService(VerifierConfig(**{"math": MathConfig(workers=0), **settings}))
    transport = httpx.ASGITransport(service.app)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@asynccontextmanager
async def serve_verifier(**settings: Any) -> AsyncIterator[tuple[VerifierService, httpx.AsyncClient]]:
    """A verifier behind a port, and a client of it."""
    service = VerifierService(VerifierConfig(**{"math": MathConfig(workers=0), **settings}))
    async with (
        serve_in_background(service.app, open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield service, client


def make_item(kind: str, response: str, key: dict[str, Any], item_id: str = "1", **more: Any) -> dict[str, Any]:
    """An item as a client would send it."""
    return {"id": item_id, "kind": kind, "response": response, "answer_key": key, **more}


async def judge(client: httpx.AsyncClient, *items: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The verdicts of a batch."""
    response = await client.post("/v1/verdicts", json={"items": items, **more})
    assert response.status_code == 200, response.text
    return list(response.json()["verdicts"])
