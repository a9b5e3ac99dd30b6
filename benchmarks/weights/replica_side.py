"""The process of the replicas: real receivers and stores; their engines are stubs that load nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.weights.usage import reset_peak, usage
from services.rollout.engines.engine import EngineLimits
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from shared.clients import LearnerClient
from shared.errors import InvalidInput
from shared.protocol.weights import Manifest
from shared.runtime.client import http_client
from shared.tree.draw import WeightVersion
from shared.weights import Incoming, SnapshotStore
from shared.weights.manifest import check_contents

MOST_BYTES = 1 << 40
STALENESS = 1
"""Within which replicas of the benchmark's run serve."""


class Follow(NamedTuple):
    """Have every replica take this version or a newer one."""

    manifest: str
    anew: bool
    """All of the bundle, though a delta may lead there."""


class Serving(NamedTuple):
    """A replica serves a version since `at` (time.monotonic)."""

    replica: int
    version: WeightVersion
    at: float


class Stub:
    """An engine at the load only: it remembers the version."""

    version: WeightVersion | None = None
    limits = EngineLimits(vocab_size=16, context_length=1024)

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        self.version = version


class SlowStore(SnapshotStore):
    """Takes transfers in at a bounded pace."""

    bytes_per_second = 0.0

    @asynccontextmanager
    async def incoming(self, *arguments: Any, **named: Any) -> AsyncIterator[Incoming]:
        async with super().incoming(*arguments, **named) as incoming:
            feed = incoming.feed

            def feed_slowly(data: memoryview) -> bool:
                time.sleep(len(data) / self.bytes_per_second)
                return feed(data)

            incoming.feed = feed_slowly  # type: ignore[method-assign]
            yield incoming


class ReplicaSide:
    """Some replicas; where `slow_bytes_per_second` is given, the first of them is slow."""

    def __init__(self, pipe: Connection, url: str, directory: Path, count: int, slow_bytes_per_second: float) -> None:
        self._pipe = pipe
        self._http = http_client(None, 600.0)
        self._learner = LearnerClient(self._http, url)
        self._receivers: list[PolicyReceiver] = []
        for number in range(count):
            is_slow = number == 0 and slow_bytes_per_second > 0
            store = (SlowStore if is_slow else SnapshotStore)(directory / f"replica-{number}", keep=1)
            if isinstance(store, SlowStore):
                store.bytes_per_second = slow_bytes_per_second
            engine: Any = Stub()
            self._receivers.append(PolicyReceiver(engine, store, RolloutMetrics(), MOST_BYTES, _no_tokenizer))
        self._newest: Manifest | None = None
        self._published: dict[WeightVersion, Manifest] = {}
        self._fetching: list[asyncio.Task[None] | None] = [None] * count

    def follow(self, order: Follow) -> None:
        """Has each replica that is idle go to the newest version; the others go there from the one they take now."""
        self._newest = manifest = Manifest.model_validate_json(order.manifest)
        self._published[manifest.version] = manifest
        for number, fetching in enumerate(self._fetching):
            if fetching is None or fetching.done():
                self._fetching[number] = asyncio.create_task(self._catch_up(number, order.anew))

    async def _catch_up(self, number: int, anew: bool) -> None:
        receiver = self._receivers[number]
        while self._newest is not None and receiver.version != self._newest.version:
            try:
                version = await receiver.fetch(self._learner, whole=anew)
            except Exception as error:  # the benchmark ends: its figures would be of fewer replicas
                self._pipe.send(error)
                raise
            self._pipe.send(Serving(number, version, time.monotonic()))

    def stale(self) -> list[int]:
        """The replicas whose trees the run would not use, now that the newest version is published."""
        assert self._newest is not None
        for receiver in self._receivers:
            receiver.note_run(self._newest.version, STALENESS)
        return [number for number, receiver in enumerate(self._receivers) if not receiver.is_serving]

    def differing(self) -> list[int]:
        """The replicas whose files are not, bit for bit, those that were published as their version."""
        found = []
        for number, receiver in enumerate(self._receivers):
            published = self._published[receiver.version] if receiver.version else None
            try:
                if published is None or receiver.content_hash != published.content_hash:
                    raise InvalidInput("it serves what was never published")
                check_contents(receiver._directory, published)
            except InvalidInput:
                found.append(number)
        return found

    async def close(self) -> None:
        for fetching in self._fetching:
            if fetching is not None:
                fetching.cancel()
        await asyncio.gather(*filter(None, self._fetching), return_exceptions=True)
        await self._http.aclose()


def run(pipe: Connection, url: str, directory: Path, count: int, slow_bytes_per_second: float) -> None:
    """Obeys what comes through the pipe, until that is `None`."""
    asyncio.run(_run(pipe, url, directory, count, slow_bytes_per_second))


async def _run(pipe: Connection, url: str, directory: Path, count: int, slow_bytes_per_second: float) -> None:
    side = ReplicaSide(pipe, url, directory, count, slow_bytes_per_second)
    try:
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            if isinstance(order, Follow):
                side.follow(order)
            elif order == "stale":
                pipe.send(side.stale())
            elif order == "differing":
                pipe.send(await asyncio.to_thread(side.differing))
            else:
                pipe.send(usage())
                reset_peak()
    finally:
        await side.close()


def _no_tokenizer(directory: Path) -> Any:
    raise NotImplementedError("no chats here")
