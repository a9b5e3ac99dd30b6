"""The rollout service's HTTP doors: trees on request, weights in, the policy's state."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from services.rollout.grower import Listener, TooFewVerdicts, TreeGrower
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from shared.errors import IbtpoError, InvalidInput, Overloaded, Unavailable
from shared.protocol.grow import GrowRequest, GrowthEvent, GrowthFailed, TreeGrown
from shared.protocol.message import Message
from shared.protocol.task import Task
from shared.protocol.tree import ScoredTree
from shared.runtime.streamed import StreamedAnswer
from shared.tree.draw import WeightVersion

MSGPACK = "application/msgpack"
NDJSON = "application/x-ndjson"
T = TypeVar("T")


class PolicyState(Message):
    """What a replica serves."""

    replica: str
    version: WeightVersion | None
    content_hash: str


class OnDemandTrees:
    """Grows posted trees, a bounded number at once."""

    def __init__(self, grower: TreeGrower, policy: PolicyReceiver, metrics: RolloutMetrics, max_trees: int) -> None:
        self._grower = grower
        self._policy = policy
        self._metrics = metrics
        self._max_trees = max_trees
        self._growing = 0

    @property
    def trees_in_flight(self) -> int:
        """Posted trees that are being grown now."""
        return self._growing

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the trees that may grow; Overloaded when all are taken."""
        if self._growing >= self._max_trees:
            raise Overloaded(f"{self._growing} posted trees are growing, the most this replica takes: try again later")
        self._growing += 1
        try:
            yield
        finally:
            self._growing -= 1

    def task(self, request: GrowRequest) -> Task:
        """The task that a posted problem stands for."""
        prompt_ids = request.prompt_ids or self._policy.vocabulary.encode(request.prompt or "")
        if not prompt_ids:
            raise InvalidInput("the prompt has no tokens")
        return Task(
            run="",
            id="posted",
            problem_id="posted",
            prompt_ids=prompt_ids,
            kind=request.kind or "",
            answer_key=request.answer_key or {},
            growth=request.growth,
            seed=request.seed,
        )

    async def grow(self, task: Task, listen: Listener | None = None) -> ScoredTree:
        """One tree, grown and counted."""
        try:
            tree = await self._grower.grow(task, self._policy.vocabulary, listen)
        except Unavailable as error:
            self._metrics.record_failure(is_discarded=isinstance(error, TooFewVerdicts))
            raise
        self._metrics.record_tree(tree)
        return tree

    @asynccontextmanager
    async def events(self, task: Task) -> AsyncIterator[AsyncIterator[bytes]]:
        """The growth as it goes, one JSON line an event; the last is the tree, or why there is none. Overloaded as
        `place` says; the growth ends with the block."""
        # At most one event a draw, one a round and the end: a client that reads slowly blocks no growth.
        heard: asyncio.Queue[GrowthEvent] = asyncio.Queue(maxsize=2 * task.growth.sampler.num_draws + 2)

        async def grow() -> None:
            try:
                heard.put_nowait(_announcement(await self.grow(task, heard.put_nowait)))
            except IbtpoError as error:
                heard.put_nowait(GrowthFailed(title=error.title, detail=str(error)))
            except Exception:
                heard.put_nowait(GrowthFailed(title="internal error", detail="see the service's log"))
                raise

        async with self.place():
            growing = asyncio.create_task(grow())
            try:
                yield _lines(heard)
            finally:
                growing.cancel()
                await asyncio.wait((growing,))


def build_router(on_demand: OnDemandTrees, policy: PolicyReceiver, replica: str) -> APIRouter:
    """The service's routes."""
    router = APIRouter()

    @router.post("/v1/trees", response_model=TreeGrown)
    async def grow_tree(body: GrowRequest, request: Request) -> Response:
        """Grows one tree. `stream` sends its growth as JSON lines; `Accept: application/msgpack` the packed tree."""
        task = on_demand.task(body)
        if body.stream:
            return StreamedAnswer(on_demand.events(task), NDJSON)
        async with on_demand.place():
            tree = await _unless_gone(request, on_demand.grow(task))
        if MSGPACK in request.headers.get("accept", ""):
            return Response(tree.pack(), media_type=MSGPACK)
        return Response(_announcement(tree).model_dump_json(), media_type="application/json")

    @router.put("/v1/weights/{version}")
    async def put_weights(version: Annotated[str, Path(max_length=64)], request: Request) -> PolicyState:
        """Receives a policy bundle (docs/protocol.md), verifies it whole, and serves it."""
        try:
            expected = WeightVersion.parse(version)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        await policy.receive(request.stream(), expected)
        return _state()

    @router.get("/v1/policy")
    async def get_policy() -> PolicyState:
        """What is being served."""
        return _state()

    def _state() -> PolicyState:
        return PolicyState(replica=replica, version=policy.version, content_hash=policy.content_hash)

    return router


async def _lines(heard: asyncio.Queue[GrowthEvent]) -> AsyncIterator[bytes]:
    while True:
        event = await heard.get()
        yield event.model_dump_json().encode() + b"\n"
        if isinstance(event, TreeGrown | GrowthFailed):
            return


def _announcement(tree: ScoredTree) -> TreeGrown:
    figures = tree.figures()
    return TreeGrown(
        tree=base64.b64encode(tree.pack()).decode(),
        root_value=figures.root_value,
        is_mixed=figures.mixed_trees > 0,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
    )


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Awaits `work`; ClientDisconnect, and no more work, when the client that asked for it leaves."""
    working = asyncio.ensure_future(work)
    watching = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.wait((watching, working))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
