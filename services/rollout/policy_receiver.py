"""Receives policy bundles, pushed or pulled, and loads the newest one into the engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from services.rollout.engines.engine import Engine
from services.rollout.metrics import LoadResult, RolloutMetrics
from services.rollout.vocabulary import Vocabulary
from shared.clients import LearnerClient
from shared.errors import Conflict, IbtpoError, InvalidInput, Unavailable
from shared.runtime.logs import event_logger
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot, SnapshotStore

log = event_logger(__name__)
_MOST_CHARACTERS_PER_TOKEN = 16
"""On average over a prompt: text has about 4."""
_SHORT_CHARACTERS = 4096


class PolicyReceiver:
    """Versions only increase: a newer generation replaces an older one, and numbers grow within a generation
    (docs/architecture.md)."""

    def __init__(self, engine: Engine, store: SnapshotStore, metrics: RolloutMetrics, max_bytes: int) -> None:
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._receiving = asyncio.Lock()
        self._encoding = asyncio.Lock()
        self._pinned = AsyncExitStack()  # the served snapshot: an engine that restarts reads it again
        self._vocabulary: Vocabulary | None = None
        self._content_hash = ""

    @property
    def version(self) -> WeightVersion | None:
        """The served version; None before the first load."""
        return self._engine.version

    @property
    def is_serving(self) -> bool:
        """Whether a tree could be grown now."""
        return self._vocabulary is not None and self._engine.version is not None

    @property
    def is_receiving(self) -> bool:
        """Whether a bundle is arriving or being loaded."""
        return self._receiving.locked()

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the served policy; Unavailable before the first load."""
        if self._vocabulary is None:
            raise Unavailable("no weights yet: the learner pushes them, or start with rollout.model=DIRECTORY")
        return self._vocabulary

    async def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text. A long one is encoded beside the loop, one at a time; InvalidInput for one that is far too
        long for the context."""
        vocabulary, context = self.vocabulary, self._engine.limits.context_length
        if len(text) > context * _MOST_CHARACTERS_PER_TOKEN:
            raise InvalidInput(
                f"a prompt of {len(text)} characters cannot fit the context of {context} tokens: shorten it to "
                f"{context * _MOST_CHARACTERS_PER_TOKEN} characters at most"
            )
        if len(text) <= _SHORT_CHARACTERS:
            return vocabulary.encode(text)
        async with self._encoding:
            return await asyncio.to_thread(vocabulary.encode, text)

    @property
    def content_hash(self) -> str:
        """Of the served bundle; empty before the first one arrived over HTTP."""
        return self._content_hash

    async def receive(self, stream: AsyncIterator[bytes], expected: WeightVersion | None = None) -> WeightVersion:
        """Stages, verifies and serves the bundle in `stream`; Conflict unless it is newer than the served one.

        The served bundle itself, sent again, is accepted.
        """
        # one bundle at a time: the disk has room for the served one and one more
        async with self._receiving:
            if expected is not None:
                self._refuse_older(expected)
            snapshot = await self._store.receive(stream, self._max_bytes)
            version = snapshot.version
            if expected is not None and version != expected:
                raise Conflict(f"the request announces version {expected}, its manifest says {version}")
            if version == self.version and snapshot.manifest.content_hash == self._content_hash:
                return version
            self._refuse_older(version)
            if version == self.version:
                raise Conflict(f"version {version} is served with different contents: two learners share a generation")
            await self._load(snapshot)
        return version

    async def pull(self, learner: LearnerClient) -> WeightVersion | None:
        """Fetches the learner's latest bundle; None if it is no newer than the served one."""
        async with learner.latest_weights() as (version, bundle):
            try:
                return await self.receive(bundle, version)
            except Conflict:
                return None

    async def load_directory(self, directory: Path) -> None:
        """Serves a bundle of this host as version 0.0, which any learner's version replaces."""
        vocabulary = await asyncio.to_thread(Vocabulary.load, directory)
        await self._engine.load(directory, WeightVersion(0, 0))
        self._vocabulary = vocabulary

    def _refuse_older(self, version: WeightVersion) -> None:
        served = self.version
        if served is not None and version < served:
            raise Conflict(
                f"version {version} is older than {served}, which is served: this replica follows a newer learner"
            )

    async def _load(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        async with AsyncExitStack() as pinned:
            await pinned.enter_async_context(self._store.pin(snapshot))
            try:
                vocabulary = await asyncio.to_thread(Vocabulary.load, snapshot.directory)
                await self._engine.load(snapshot.directory, snapshot.version)
            except IbtpoError:
                self._metrics.weight_loads.labels(LoadResult.REFUSED).inc()
                raise
            self._pinned, before = pinned.pop_all(), self._pinned
        await before.aclose()
        self._vocabulary = vocabulary
        self._content_hash = snapshot.manifest.content_hash
        self._metrics.record_load(snapshot.version, time.monotonic() - started)
        log.info("weights_loaded", version=str(snapshot.manifest.version), seconds=time.monotonic() - started)
