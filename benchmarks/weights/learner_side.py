"""The process that publishes: real files, deltas and HTTP answers; the policy is synthetic."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from benchmarks.weights.bundles import RUN, SyntheticPolicy
from benchmarks.weights.usage import Usage, reset_peak, usage
from services.learner.app import build_router
from shared.protocol.weights import Base
from shared.runtime.app import create_app
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, write_manifest

ORIGIN = "b0"


class LearnerSide:
    """Publishes versions of a synthetic policy, as services.learner.serving.Publisher does, and answers replicas."""

    def __init__(self, directory: Path, num_bytes: int, seed: int) -> None:
        self._policy = SyntheticPolicy(num_bytes, seed)
        self._store = SnapshotStore(directory / "published", keep=1)
        self._lineage = Lineage(directory / "deltas")
        self._draft = directory / "draft"
        self._latest: Snapshot | None = None

    @asynccontextmanager
    async def route(self, have: Base | None) -> AsyncIterator[Outgoing]:
        """As Publisher.route."""
        assert self._latest is not None
        async with self._store.pin(self._latest) as newest, self._lineage.route(newest, have) as outgoing:
            yield outgoing

    def publish(self) -> dict[str, Any]:
        """An optimizer step, and all that follows in the background until the version can be had."""
        before = self._latest
        if before is not None:
            self._policy.step()
        stepped, cpu = time.monotonic(), usage()
        self._policy.write(self._draft)
        written = time.monotonic()
        version = WeightVersion(1, before.version.number + 1 if before else 0, ORIGIN)
        manifest = write_manifest(RUN, self._draft, version)
        hashed = time.monotonic()
        delta_bytes = 0
        if before is None:
            self._latest = self._store.adopt(self._draft, manifest)
        else:
            with self._store.hold(before):
                new = self._store.adopt(self._draft, manifest)
                delta_bytes = self._lineage.add(before, new).num_bytes
            self._latest = new
        return {
            "stepped": stepped,
            "manifest": manifest.model_dump_json(),
            "write_seconds": written - stepped,
            "hash_seconds": hashed - written,
            "encode_seconds": time.monotonic() - hashed,
            "cpu_seconds": usage().cpu_seconds - cpu.cpu_seconds,
            "full_bytes": manifest.num_bytes,
            "delta_bytes": delta_bytes,
        }


def run(pipe: Connection, directory: Path, num_bytes: int, seed: int) -> None:
    """Serves, and obeys what comes through the pipe, until that is `None`."""
    asyncio.run(_run(pipe, LearnerSide(directory, num_bytes, seed)))


async def _run(pipe: Connection, side: LearnerSide) -> None:
    app = create_app(
        "learner",
        build_router(side, _no_status, lambda: None),  # type: ignore[arg-type]  # it routes, and that is all
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token=None,
        max_body_bytes=1 << 20,
    )
    async with serve_in_background(app, open_listener("127.0.0.1", 0, None)) as url:
        pipe.send(url)
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            answer: dict[str, Any] | Usage
            if order == "publish":
                answer = await asyncio.to_thread(side.publish)
            else:
                answer = usage()
                reset_peak()
            pipe.send(answer)


def _no_status() -> Any:
    raise NotImplementedError("this learner has no run")
