"""The learner client against the learner's routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from fastapi import APIRouter, Response

from services.learner.app import build_router
from services.learner.serving.publisher import Publisher
from shared.clients import LearnerClient
from shared.errors import MalformedAnswer, Unavailable, Unreachable
from shared.protocol.status import RunState, RunStatus
from shared.protocol.weights import Base
from shared.runtime.client import http_client
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, write_manifest
from tests.clients.conftest import Serve


class Run:
    """Publishes one snapshot, and can be stopped."""

    def __init__(self, root: Path) -> None:
        self.lineage = Lineage(root / "deltas")
        self.latest: Snapshot | None = None
        self.state = RunState.TRAINING

    @asynccontextmanager
    async def route(self, have: Base | None) -> AsyncIterator[Outgoing]:
        if self.latest is None:
            raise Unavailable("no version is published yet")
        async with self.lineage.route(self.latest, have) as outgoing:
            yield outgoing

    def status(self) -> RunStatus:
        return RunStatus(run="r", state=self.state)

    def stop(self) -> None:
        self.state = RunState.STOPPING

    def router(self) -> APIRouter:
        return build_router(cast(Publisher, self), self.status, self.stop)


async def test_the_run_says_where_it_is_and_stops(serve: Serve, tmp_path: Path) -> None:
    run = Run(tmp_path)
    async with serve(run.router()) as served:
        client = LearnerClient(*served)
        assert (await client.status(5)).state is RunState.TRAINING
        assert (await client.stop(5)).state is RunState.STOPPING
        assert run.state is RunState.STOPPING


async def test_the_latest_weights_come_with_their_version(serve: Serve, tmp_path: Path) -> None:
    run = Run(tmp_path)
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    async with serve(run.router()) as served:
        client = LearnerClient(*served)
        with pytest.raises(Unavailable, match="no version is published yet"):
            async with client.latest_weights():
                pass
        run.latest = Snapshot(write_manifest("r", directory, WeightVersion(2, 7)), directory)
        store = SnapshotStore(tmp_path / "store", keep=1)
        async with client.latest_weights() as (version, download), store.incoming(1 << 20) as incoming:
            await download.read(incoming.feed)
            received = await store.complete(incoming)
        assert version == received.version == WeightVersion(2, 7)


async def test_weights_without_a_version_are_malformed(serve: Serve) -> None:
    router = APIRouter()

    @router.get("/v1/weights/latest")
    async def weights() -> Response:
        return Response(b"bytes", media_type="application/octet-stream")

    async with serve(router) as served:
        with pytest.raises(MalformedAnswer, match="X-Weight-Version"):
            async with LearnerClient(*served).latest_weights():
                pass


async def test_nobody_is_there() -> None:
    async with http_client(None, 2.0) as http:
        with pytest.raises(Unreachable, match=r"the learner at http://127\.0\.0\.1:9"):
            await LearnerClient(http, "http://127.0.0.1:9").status(2)
