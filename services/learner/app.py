"""The learner's HTTP routes: the latest policy, the run's status, a stop."""

from collections.abc import Callable

from fastapi import APIRouter, Response

from services.learner.serving.publisher import Publisher
from shared.errors import Unavailable
from shared.protocol.status import RunStatus
from shared.runtime.streamed import StreamedAnswer
from shared.weights import bundle_length


def build_router(publisher: Publisher, status: Callable[[], RunStatus], stop: Callable[[], None]) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/weights/latest")
    async def get_weights() -> Response:
        """The published policy bundle (docs/protocol.md), also during a step. 503 before the first version."""
        snapshot = publisher.latest
        if snapshot is None:
            raise Unavailable("no version is published yet: the learner is starting; ask again")
        headers = {"Content-Length": str(bundle_length(snapshot.manifest)), "X-Weight-Version": str(snapshot.version)}
        return StreamedAnswer(publisher.stream(snapshot), "application/octet-stream", headers)

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
