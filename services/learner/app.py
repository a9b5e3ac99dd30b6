"""The learner's HTTP routes: the latest policy, the run's status, a stop."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.learner.serving.publisher import Publisher
from shared.errors import InvalidInput
from shared.protocol.message import complaint
from shared.protocol.status import RunStatus
from shared.protocol.weights import Base
from shared.runtime.streamed import FileAnswer, FileBody, FileSlice
from shared.tree.draw import WeightVersion


def build_router(publisher: Publisher, status: Callable[[], RunStatus], stop: Callable[[], None]) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/weights/latest", responses={416: {}})
    async def get_weights(
        base: Annotated[str, Query(max_length=64)] = "",
        content_hash: Annotated[str, Query(alias="hash", max_length=64)] = "",
    ) -> Response:
        """The latest published policy (docs/protocol.md), also during a step: what differs from the bundle `base`, of
        content `hash`, where the learner still has that, else all of it. 503 before the first version."""
        have = _base_of(base, content_hash)
        return FileAnswer(_transfer(publisher, have), "application/octet-stream")

    @router.get("/v1/status")
    async def get_status() -> RunStatus:
        """The run's status."""
        return status()

    @router.post("/v1/stop")
    async def post_stop() -> RunStatus:
        """Ends the run after the step in progress, with a checkpoint."""
        stop()
        return status()

    return router


def _base_of(version: str, content_hash: str) -> Base | None:
    if not version and not content_hash:
        return None
    try:
        return Base(version=WeightVersion.parse(version), content_hash=content_hash)
    except ValueError as error:
        raise InvalidInput(f"base={version!r}, hash={content_hash!r} name no bundle: {complaint(error)}") from error


@asynccontextmanager
async def _transfer(publisher: Publisher, have: Base | None) -> AsyncIterator[FileBody]:
    async with publisher.route(have) as outgoing:
        slices = [FileSlice(path, 0, num_bytes) for path, num_bytes in outgoing.files]
        version = outgoing.transfer.manifest.version
        etag, headers = sha256(outgoing.head).hexdigest(), {"X-Weight-Version": str(version)}
        yield FileBody((outgoing.head, *slices), etag, headers, outgoing.on_sent)
