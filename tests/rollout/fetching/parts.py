"""A learner that publishes small versions, a replica that fetches them, and what may go wrong between the two."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from services.demo.task import checkpoint_directory
from services.learner.app import build_router
from services.learner.serving.publisher import Publisher
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.vocabulary import VOCABULARY_FILES
from shared.clients import LearnerClient
from shared.protocol.status import RunState, RunStatus
from shared.protocol.weights import Base, Encoding
from shared.runtime.client import http_client
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, write_manifest
from tests.rollout.fetching.engine import EngineOfBytes
from tests.serving import serve_router
from tests.weights.bundles import Weights, contents

PLENTY = 10**9


def write_readable(weights: Weights, directory: Path, version: WeightVersion) -> None:
    """With the demo's configuration and tokenizer, which a replica reads."""
    weights.write(directory, version)
    for name in VOCABULARY_FILES:
        if (checkpoint_directory() / name).exists():
            shutil.copyfile(checkpoint_directory() / name, directory / name)


class PublishingLearner:
    """Publishes version after version of small weights, and gives them out by the learner's own route."""

    def __init__(self, root: Path, *, generation: int = 1, origin: str = "beef", run: str = "r", seed: int = 0) -> None:
        self._root = root
        self._history = generation, origin
        self._run = run
        self.weights = Weights(seed)
        self.lineage = Lineage(root / "deltas")
        self.snapshots: list[Snapshot] = []
        self.sent: list[tuple[Encoding, int]] = []
        """Which transfers were asked for, a broken one each time: how, and the length of the whole."""

    @property
    def latest(self) -> Snapshot:
        return self.snapshots[-1]

    def publish(self, share: float = 0.01) -> Snapshot:
        self.weights.move(share)
        generation, origin = self._history
        version = WeightVersion(generation, len(self.snapshots), origin)
        directory = self._root / str(version)
        write_readable(self.weights, directory, version)
        snapshot = Snapshot(write_manifest(self._run, directory, version), directory)
        if self.snapshots:
            self.lineage.add(self.latest, snapshot)
        self.snapshots.append(snapshot)
        return snapshot

    @asynccontextmanager
    async def route(self, have: Base | None) -> AsyncIterator[Outgoing]:
        async with self.lineage.route(self.latest, have) as outgoing:
            self.sent.append((outgoing.transfer.encoding, outgoing.num_bytes))
            yield outgoing

    @asynccontextmanager
    async def serve(self, token: str | None = None) -> AsyncIterator[str]:
        router = build_router(cast(Publisher, self), lambda: RunStatus(run="r", state=RunState.TRAINING), lambda: None)
        async with serve_router(router, token) as url:
            yield url


class CuttingProxy:
    """Between learner and replica: the n-th connection ends after `cuts[n]` bytes toward the replica; later ones are
    whole. `before_next` is awaited before each further connection."""

    def __init__(self, learner_url: str) -> None:
        self._port = int(learner_url.rpartition(":")[2])
        self.cuts: list[int] = []
        self.before_next: list[Any] = []
        self.num_connections = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        if self.num_connections > 1 and self.before_next:
            self.before_next.pop(0)()
        left = self.cuts.pop(0) if self.cuts else PLENTY
        upstream, toward = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            with suppress(ConnectionError):
                toward.write(await reader.readuntil(b"\r\n\r\n"))
                while left > 0 and (data := await upstream.read(min(left, 65536))):
                    writer.write(data)
                    await writer.drain()
                    left -= len(data)
        finally:
            for one in (toward, writer):
                one.close()
                with suppress(ConnectionError):
                    await one.wait_closed()


class FetchingReplica:
    """The part of a replica that takes weights."""

    def __init__(self, root: Path, token: str | None = None, max_bytes: int = PLENTY) -> None:
        self.root = root
        self.metrics = RolloutMetrics()
        self.http = http_client(token, 5.0)
        self._max_bytes = max_bytes
        self.engine = EngineOfBytes()
        self.restart()

    def restart(self) -> None:
        """What a new process in the same directory begins with."""
        self.engine = EngineOfBytes()
        store = SnapshotStore(self.root, keep=1, run="r")
        engine: Any = self.engine
        self.policy = PolicyReceiver(engine, store, self.metrics, self._max_bytes, str)

    async def fetch(self, url: str, run_origin: str | None = None) -> WeightVersion:
        return await self.policy.fetch(LearnerClient(self.http, url), run_origin)

    def loads(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("ibtpo_rollout_weight_loads_total", {"result": result}) or 0.0

    def serves(self, snapshot: Snapshot) -> bool:
        """This version, bit for bit, and it alone is on the disk."""
        return (
            self.engine.version == snapshot.version
            and self.engine.served == contents(snapshot.directory)
            and self.policy.content_hash == snapshot.manifest.content_hash
            and [path.name for path in self.root.iterdir()] == [str(snapshot.version)]
            and contents(self.root / str(snapshot.version)) == self.engine.served
        )


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
