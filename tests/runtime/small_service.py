"""A small service for the tests of the runtime; run as a script it is a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry
from pydantic import Field

from shared.errors import Conflict, InvalidInput, Overloaded, Unavailable
from shared.protocol.message import Message
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.logs import configure_logs, event_logger
from shared.runtime.serve import open_listener, serve, serve_in_background

TOKEN = "a-token-nobody-should-see"


class Order(Message):
    """A body with fields to get wrong."""

    count: int = Field(ge=1)
    names: tuple[str, ...] = ()
    share: float = 0.5


def small_router() -> APIRouter:
    router = APIRouter()

    @router.post("/v1/orders")
    async def order(body: Order) -> int:
        return body.count

    @router.put("/v1/blobs/{name}")
    async def blob(name: str, request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @router.get("/v1/errors/{kind}")
    async def fail(kind: str) -> None:
        errors = {"conflict": Conflict, "invalid": InvalidInput, "overloaded": Overloaded, "unavailable": Unavailable}
        if kind in errors:
            raise errors[kind](f"{kind} with the value 7; do otherwise")
        if kind == "address":
            raise Unavailable("the verifier at http://me:hunter2@host:80/ cannot be reached")
        raise RuntimeError("the database password is hunter2")

    @router.get("/v1/half")
    async def half() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("broken in the middle")

        return StreamingResponse(body())

    @router.get("/v1/endless")
    async def endless() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(body())

    @router.get("/v1/slow/{milliseconds}")
    async def slow(milliseconds: int) -> str:
        event_logger("small").info("slow_begun")
        await asyncio.sleep(milliseconds / 1000)
        return "done"

    return router


def small_app(
    *,
    router: APIRouter | None = None,
    token: str | None = None,
    run: str | None = None,
    ready: Callable[[], str | None] = lambda: None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    max_body_bytes: int = 10_000,
) -> FastAPI:
    return create_app(
        "small",
        router or small_router(),
        lifespan=lifespan,
        ready=ready,
        run=run,
        registry=CollectorRegistry(),
        token=token,
        max_body_bytes=max_body_bytes,
        max_body_bytes_of_prefix={"/v1/blobs/": 1_000_000},
    )


@asynccontextmanager
async def client_of(app: FastAPI, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_in_background(app, open_listener("127.0.0.1", 0, None)) as url, http_client(token, 10.0) as client:
        client.base_url = httpx.URL(url)
        yield client


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    """As the tests ask by SMALL_LIFE: fails or hangs at the start, works or clings at the end, or ends by itself."""
    life = os.environ.get("SMALL_LIFE", "")
    log = event_logger("small")
    if life == "fails":
        raise RuntimeError("no model at /nowhere")
    if life == "works":

        async def finish() -> None:
            await asyncio.sleep(0.3)
            log.info("work_finished")

        app.state.drain.before_exit(finish)
    if life == "hangs":
        log.info("hanging")
        await asyncio.sleep(600)
    if life == "ends":
        asyncio.get_running_loop().call_later(0.2, app.state.drain.begin, 7)
    log.info("began", url=app.state.url)
    yield
    if life == "clings":
        log.info("clinging")
        await asyncio.sleep(600)
    log.info("ended")


def main() -> int:
    host, port, token, grace_seconds, url_file = sys.argv[1:]
    configure_logs("small", "debug", secrets=[token])
    return serve(
        small_app(token=token or None, lifespan=_life),
        host=host,
        port=int(port),
        token=token or None,
        grace_seconds=float(grace_seconds),
        url_file=Path(url_file),
    )


if __name__ == "__main__":
    sys.exit(main())
