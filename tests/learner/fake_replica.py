"""A rollout replica without an engine: it takes tasks and weights as a real one does, and answers with random draws."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
from fastapi import APIRouter, Request, Response

from shared.clients import LearnerClient
from shared.errors import IbtpoError, Overloaded, Unavailable
from shared.protocol.grow import GrowRequest
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.task import Task
from shared.protocol.tree import ScoredTree
from shared.protocol.weights import Base, Offer
from shared.runtime.loops import Periodic
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion
from shared.weights import SnapshotStore
from tests.learner.synthetic import draws, scored
from tests.serving import serve_router


class FakeReplica:
    """What it does can be changed while it runs."""

    def __init__(self, streams: RunStreams, name: str, directory: Path) -> None:
        self.name = name
        self.version: WeightVersion | None = None
        self.base: Base | None = None
        """The last bundle that it took."""
        self.loaded: list[WeightVersion] = []
        self.push_error: IbtpoError | None = None
        """What it answers to offered weights."""
        self.load_seconds = 0.0
        self.may_load = asyncio.Event()
        """Without it, offered weights wait."""
        self.may_load.set()
        self.asked = 0
        """How often weights were offered."""
        self.grow_seconds = 0.01
        self.is_overloaded = False
        self.posted = 0
        self.reward: float | None = None
        """Of every draw; None: random ones."""
        self.unjudged: set[int] = set()
        """The golds of posted problems that never get a verdict."""
        self.endless: set[int] = set()
        """The golds of posted problems that are never answered."""
        self.url = ""
        self._streams = streams
        self._store = SnapshotStore(directory, keep=2)

    @asynccontextmanager
    async def live(self) -> AsyncIterator["FakeReplica"]:
        """Announced and serving while the block runs; afterwards it is gone without a word."""
        async with serve_router(self._router(), max_body_bytes=1 << 26) as self.url:
            loops = [
                asyncio.create_task(Periodic(step.__name__, step, every_seconds=seconds).run())
                for step, seconds in ((self._announce, 0.1), (self._harvest, 0.02), (self._catch_up, 0.3))
            ]
            try:
                yield self
            finally:
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)

    def _router(self) -> APIRouter:
        router = APIRouter()

        @router.put("/v1/weights/{version}")
        async def put_weights(version: str, request: Request) -> None:
            self.asked += 1
            if self.push_error is not None:
                raise self.push_error
            await asyncio.sleep(self.load_seconds)
            await self.may_load.wait()
            offer = Offer.model_validate_json(await request.body())
            assert str(offer.version) == version
            if self.version != offer.version:
                self.loaded.append(await self._fetch())

        @router.post("/v1/trees")
        async def grow_tree(body: GrowRequest) -> Response:
            self.posted += 1
            if self.is_overloaded:
                raise Overloaded("too many trees")
            gold = int((body.answer_key or {}).get("gold", -1))
            if gold in self.unjudged:
                raise Unavailable("8 of 8 draws have no verdict: is the verifier up?")
            if gold in self.endless:
                await asyncio.Event().wait()
            task = Task(
                run="",
                id="posted",
                problem_id="",
                prompt_ids=body.prompt_ids or (),
                kind=body.kind or "",
                answer_key=body.answer_key or {},
                growth=body.growth,
                seed=body.seed,
            )
            return Response(self._grow(task).pack(), media_type="application/msgpack")

        return router

    def _grow(self, task: Task) -> ScoredTree:
        if self.version is None:
            raise Unavailable("no weights yet")
        rng = random.Random(task.seed)
        rewards = {} if self.reward is None else {"rewards": (self.reward,)}
        record = draws(rng, task.growth.sampler.initial_draws, 0, versions=(self.version,), max_tokens=6, **rewards)
        return scored(task, record, replica=self.name)

    async def _announce(self) -> None:
        state = ReplicaState.SERVING if self.version else ReplicaState.WAITING
        info = ReplicaInfo(name=self.name, url=self.url, state=state, version=self.version)
        await self._streams.replicas.announce(info, 1.0)

    async def _harvest(self) -> None:
        if self.version is not None:
            for claim in await self._streams.tasks.take(self.name, 4, 0.2):
                await asyncio.sleep(self.grow_seconds)
                await self._streams.tasks.finish(claim, self._grow(claim.task))

    async def _catch_up(self) -> None:
        """Pulls the learner's latest weights when it has none."""
        if self.version is None and self.push_error is None and self.may_load.is_set():
            await self._fetch()

    async def _fetch(self) -> WeightVersion:
        """The latest: what differs from the bundle that it has, where the learner knows that."""
        learner = await self._streams.status_keys.learner_url()
        if learner is None:
            raise Unavailable("no learner has announced itself")
        async with (
            httpx.AsyncClient() as http,
            LearnerClient(http, learner).latest_weights(self.base) as (_, download),
            self._store.incoming(1 << 26) as incoming,
        ):
            await download.read(incoming.feed)
            snapshot = await self._store.complete(incoming)
        self.version, self.base = snapshot.version, snapshot.manifest.base
        return snapshot.version


Replica = Callable[[str], AbstractAsyncContextManager[FakeReplica]]
"""Starts one by its name."""
