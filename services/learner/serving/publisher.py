"""Publishes versions of the policy while training goes on: each an immutable snapshot, with the way to it from earlier
ones, offered to every live replica."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from services.learner.metrics import LearnerMetrics
from services.learner.serving.delivery import WeightDelivery
from services.learner.waits import Wait
from shared.errors import Unavailable
from shared.protocol.weights import Base, Encoding, Manifest
from shared.runtime.logs import event_logger
from shared.runtime.loops import cancel
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, write_manifest

log = event_logger(__name__)
T = TypeVar("T")
Weights = dict[str, Tensor]
_MOST_COPIES = 2
"""Of the policy in memory: one that is written, and one that waits for it."""


class Publisher:
    """Writes copies of the policy in a thread of its own, one after the other, and has them delivered."""

    def __init__(
        self,
        run: str,
        store: SnapshotStore,
        lineage: Lineage,
        delivery: WeightDelivery,
        metrics: LearnerMetrics,
        draft: Path,
        write: Callable[[Weights, Path], None],
        on_written: Callable[[WeightVersion], None],
    ) -> None:
        """`write`: a copy as a bundle's files; `on_written` is told each version that replicas can get from now on."""
        self._run = run
        self._store = store
        self._lineage = lineage
        self._delivery = delivery
        self._metrics = metrics
        self._draft = draft
        self._write_files = write
        self._on_written = on_written
        self._thread = ThreadPoolExecutor(1, "publish")
        self._in_turn = asyncio.Lock()
        self._spent: Weights | None = None
        """A copy that is written: its memory is for the next one."""
        self._under_way: list[asyncio.Task[Snapshot]] = []
        self._before = store.latest()
        """What the next difference is taken from; the first from what an earlier process left."""
        self.latest: Snapshot | None = None
        """What replicas should serve; None before this process has published."""
        self.begun: WeightVersion | None = None
        """The last version that was copied."""

    async def make_room(self) -> None:
        """Waits until another copy may be taken."""
        while len(self._under_way) >= _MOST_COPIES:
            await asyncio.wait({self._under_way[0]})

    def take_spent(self) -> Weights | None:
        """The memory of a copy that is written, for another one; None where there is none."""
        spent, self._spent = self._spent, None
        return spent

    def begin(self, weights: Weights, version: WeightVersion, stepped: float) -> "asyncio.Task[Snapshot]":
        """Takes over a copy of the policy, and publishes it in the background: OSError where it cannot be written.
        `stepped`: when the optimizer made it (time.monotonic)."""
        self.begun = version
        task = asyncio.create_task(self._publish(weights, version, stepped), name=f"publish {version}")
        self._under_way.append(task)
        task.add_done_callback(self._under_way.remove)
        return task

    async def delivered(self, wait: Wait) -> None:
        """Waits until the live replicas serve the last version that was copied, or have failed to take it."""
        await self._written()
        await self._delivery.settle(wait)

    async def keep_up(self, at_least: WeightVersion, wait: Wait) -> None:
        """Waits while live replicas that serve older weights are on their way to `at_least` or newer ones, each up to
        the deadline of its offer."""
        while self._under_way and self._is_before(at_least) and await self._delivery.behind(at_least):
            await asyncio.wait({self._under_way[0]})
        await self._delivery.keep_up(at_least, wait)

    @property
    def lag(self) -> int:
        """How many updates the last version that was copied is ahead of replicas that are about to take it."""
        return self._delivery.lag(self.begun) if self.begun else 0

    @asynccontextmanager
    async def route(self, have: Base | None) -> AsyncIterator[Outgoing]:
        """What brings a replica that has `have` to the newest version; what is sent stays on disk meanwhile.
        Unavailable before the first."""
        if self.latest is None:
            raise Unavailable("no version is published yet: the learner is starting; ask again")
        newest = self.latest
        async with AsyncExitStack() as held:
            outgoing = await held.enter_async_context(self._lineage.route(newest, have))
            encoding = outgoing.transfer.encoding
            if encoding is Encoding.FULL:  # a slow reader of a delta keeps no snapshot
                await held.enter_async_context(self._store.pin(newest))
            yield replace(outgoing, on_sent=self._metrics.sent_bytes.labels(encoding).inc)

    def abandon(self) -> None:
        """Publishes nothing from now on: what is being written is given up before it can be had."""
        for task in self._under_way:
            task.cancel()

    async def close(self) -> None:
        """Gives up what is not published or delivered yet."""
        await cancel(self._under_way)
        await self._delivery.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_before(self, version: WeightVersion) -> bool:
        return self.latest is None or self.latest.version < version

    async def _written(self) -> None:
        while self._under_way:
            await asyncio.wait({*self._under_way})

    async def _publish(self, weights: Weights, version: WeightVersion, stepped: float) -> Snapshot:
        async with self._in_turn:
            manifest = await self._in_thread(self._write_draft, weights, version)
            async with AsyncExitStack() as pins:
                if before := self._before:
                    await pins.enter_async_context(self._store.pin(before))
                snapshot = await self._in_thread(self._store.adopt, self._draft, manifest)
                await pins.enter_async_context(self._store.pin(snapshot))
                if before and before.version != version:
                    await self._in_thread(self._lineage.add, before, snapshot)
                self._before = self.latest = snapshot
            self._metrics.version_number.set(version.number)
            self._metrics.generation.set(version.generation)
            self._on_written(version)
            self._delivery.offer(snapshot, partial(self._lineage.length, snapshot), stepped)
            return snapshot

    def _write_draft(self, weights: Weights, version: WeightVersion) -> Manifest:
        shutil.rmtree(self._draft, ignore_errors=True)
        self._write_files(weights, self._draft)
        self._spent = weights
        return write_manifest(self._run, self._draft, version)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
