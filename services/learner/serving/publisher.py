"""Publishes versions of the policy: an immutable snapshot each, pushed to every live replica."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import httpx

from services.learner.metrics import LearnerMetrics, PushResult
from services.learner.ranks import RankWorkers
from services.learner.waits import Wait
from shared.clients import RolloutClient
from shared.errors import Conflict, IbtpoError, Unavailable
from shared.protocol.replica import ReplicaInfo
from shared.protocol.waiting import WaitKind
from shared.protocol.weights import Base
from shared.runtime.logs import event_logger
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, bundle_length, write_manifest

log = event_logger(__name__)


class Publisher:
    """Keeps the published snapshots and pushes them to the replicas. A replica that misses one pulls it."""

    def __init__(
        self,
        streams: RunStreams,
        http: httpx.AsyncClient,
        store: SnapshotStore,
        draft: Path,
        metrics: LearnerMetrics,
        *,
        push_seconds: float,
    ) -> None:
        self._streams = streams
        self._http = http
        self._store = store
        self._draft = draft
        self._lineage = Lineage(draft.parent / ".deltas")
        self._metrics = metrics
        self._push_seconds = push_seconds
        self.latest: Snapshot | None = None
        """What replicas should serve; None before this process has published."""

    def write(self, ranks: RankWorkers, version: WeightVersion) -> Snapshot:
        """Writes the policy as it is now as the snapshot of `version`. Blocking: disk."""
        shutil.rmtree(self._draft, ignore_errors=True)
        ranks.save_for_serving(self._draft)
        manifest = write_manifest(self._streams.run, self._draft, version)
        before = self._store.latest()
        with self._store.hold(before) if before else nullcontext():
            self.latest = self._store.adopt(self._draft, manifest)
            if before is not None and before != self.latest:
                self._lineage.add(before, self.latest)
        return self.latest

    @asynccontextmanager
    async def route(self, have: Base | None) -> AsyncIterator[Outgoing]:
        """What leads a replica that has `have` to the latest version; it stays on disk until its last byte is sent."""
        latest = self.latest
        if latest is None:
            raise Unavailable("no version is published yet: the learner is starting; ask again")
        async with self._store.pin(latest), self._lineage.route(latest, have) as outgoing:
            yield outgoing

    async def push(self, snapshot: Snapshot, wait: Wait | None = None) -> None:
        """Pushes the snapshot to all live replicas at once; returns when they serve it, or at the deadline."""
        wait = wait or Wait(WaitKind.PUBLISH)
        started = time.monotonic()
        try:
            replicas = await self._streams.replicas.live()
        except Unavailable as error:
            log.warning("replicas_unknown", version=str(snapshot.version), error=str(error))
            return
        wait.begin(0, bundle_length(snapshot.manifest) * len(replicas))
        pending = {replica.name for replica in replicas}
        wait.detail = lambda: f"{len(replicas) - len(pending)} of {len(replicas)} replicas have them"

        async def push_to(replica: ReplicaInfo) -> None:
            await self._push_to(replica, snapshot, wait)
            pending.discard(replica.name)

        async with self._store.pin(snapshot):
            await asyncio.gather(*map(push_to, replicas))
        self._metrics.push_seconds.observe(time.monotonic() - started)

    async def _push_to(self, replica: ReplicaInfo, snapshot: Snapshot, wait: Wait) -> None:
        result, client = PushResult.LOADED, RolloutClient(self._http, replica.url, replica.name)
        try:
            await client.push_weights(snapshot, self._push_seconds, wait.advance)
        except Unavailable as error:
            result = PushResult.UNREACHABLE
            log.warning("push_failed", replica=replica.name, version=str(snapshot.version), error=str(error))
        except IbtpoError as error:
            result = PushResult.SUPERSEDED if isinstance(error, Conflict) else PushResult.REFUSED
            log.error("push_refused", replica=replica.name, version=str(snapshot.version), error=str(error))
        self._metrics.pushes.labels(result).inc()
