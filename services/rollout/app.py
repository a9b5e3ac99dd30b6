"""The rollout service's HTTP surface: trees and scores on request, weights in, the served policy."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from services.rollout.act_probe.watch import ActWatch
from services.rollout.grower import OnEvent, TooFewVerdicts, TreeGrower
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.posted_scores import OnDemandScores
from shared.errors import IbtpoError, InvalidInput, Overloaded, TooLarge, Unavailable
from shared.protocol.act_probe import ActReading
from shared.protocol.grow import GrowRequest, GrowthEvent, GrowthFailed, TreeGrown
from shared.protocol.message import Message, complaint
from shared.protocol.score import ScoringRequest, ScoringResponse
from shared.protocol.task import Task
from shared.protocol.tree import ScoredTree
from shared.protocol.weights import Offer
from shared.runtime.streamed import StreamedAnswer
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import WeightVersion

MSGPACK = "application/msgpack"
NDJSON = "application/x-ndjson"
T = TypeVar("T")
Follow = Callable[[Offer], Awaitable[None]]
"""Fetches and serves the version of an offer."""
_MOST_OFFER_BYTES = 4096


class PolicyState(Message):
    """The policy that a replica serves."""

    replica: str
    version: WeightVersion | None
    content_hash: str
    act: ActReading | None = None
    """What it said of the act-probe last."""


class OnDemandTrees:
    """Grows the trees of HTTP requests, at most `max_trees` at once."""

    def __init__(self, grower: TreeGrower, policy: PolicyReceiver, metrics: RolloutMetrics, max_trees: int) -> None:
        self._grower = grower
        self._policy = policy
        self._metrics = metrics
        self._max_trees = max_trees
        self.trees_in_flight = 0

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Counts one tree as growing while the block runs; Overloaded if `max_trees` are growing already."""
        num_growing = self.trees_in_flight
        if num_growing >= self._max_trees:
            raise Overloaded(f"{num_growing} requested trees are growing, the most this replica takes: try later")
        self.trees_in_flight += 1
        try:
            yield
        finally:
            self.trees_in_flight -= 1

    async def task(self, request: GrowRequest) -> Task:
        prompt = request.messages or request.prompt or ""
        prompt_ids = request.prompt_ids or await self._policy.encode(prompt, request.chat_template_kwargs)
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

    async def grow(self, task: Task, on_event: OnEvent | None = None) -> tuple[ScoredTree, TreeFigures]:
        """Grows one tree and counts it."""
        try:
            tree = await self._grower.grow(task, self._policy.vocabulary, on_event)
            figures = await self._grower.figures(tree)
        except Unavailable as error:
            self._metrics.record_failure(is_discarded=isinstance(error, TooFewVerdicts))
            raise
        self._metrics.record_tree(tree, figures)
        return tree, figures

    @asynccontextmanager
    async def stream(self, task: Task) -> AsyncIterator[AsyncIterator[bytes]]:
        """Grows one tree and yields its events, one JSON line each; the last is the tree, or why there is none.

        Overloaded as in `admit`. The growth ends with the block.
        """
        # One event a draw, one a round and the last: the queue never fills, so a slow reader never delays the growth.
        events: asyncio.Queue[GrowthEvent] = asyncio.Queue(maxsize=2 * task.growth.sampler.num_draws + 2)

        async def grow() -> None:
            try:
                events.put_nowait(_describe_tree(*await self.grow(task, events.put_nowait)))
            except IbtpoError as error:
                events.put_nowait(GrowthFailed(title=error.title, detail=str(error)))
            except Exception:  # whatever it is, the reader must see an end
                events.put_nowait(GrowthFailed(title="internal error", detail="see the service's log"))
                raise

        async with self.admit():
            growing = asyncio.create_task(grow())
            try:
                yield _lines(events)
            finally:
                growing.cancel()
                await asyncio.wait((growing,))


def build_router(
    trees: OnDemandTrees,
    scores: OnDemandScores,
    policy: PolicyReceiver,
    acts: ActWatch,
    replica: str,
    follow: Follow,
) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/trees", response_model=TreeGrown, responses={429: {}})
    async def grow_tree(body: GrowRequest, request: Request) -> Response:
        """Grows one tree. `stream` sends its growth as JSON lines; `Accept: application/msgpack` the packed tree."""
        task = await trees.task(body)
        if body.stream:
            return StreamedAnswer(trees.stream(task), NDJSON)
        async with trees.admit():
            tree, figures = await _cancel_on_disconnect(request, trees.grow(task))
        if MSGPACK in request.headers.get("accept", ""):
            return Response(tree.pack(), media_type=MSGPACK)
        return Response(_describe_tree(tree, figures).model_dump_json(), media_type="application/json")

    @router.post("/v1/scores", responses={429: {}})
    async def score_continuations(body: ScoringRequest, request: Request) -> ScoringResponse:
        """The log-probabilities of given continuations; nothing is sampled."""
        return await _cancel_on_disconnect(request, scores.score(body))

    @router.put("/v1/weights/{version}", responses={409: {}})
    async def put_weights(version: Annotated[str, Path(max_length=64)], request: Request) -> PolicyState:
        """Serves a version of the policy (docs/protocol.md): the bundle in the body, or, where that is JSON, an offer
        of what the learner has. Answers when it is verified and served, or says why it is not."""
        try:
            expected = WeightVersion.parse(version)
        except ValueError as error:
            raise InvalidInput(str(error)) from error
        if request.headers.get("Content-Type", "").partition(";")[0].strip() == "application/json":
            await follow(await _read_offer(request, expected))
        else:
            await policy.receive(request.stream(), expected)
        return _state()

    @router.get("/v1/policy")
    async def get_policy() -> PolicyState:
        """The served policy."""
        return _state()

    def _state() -> PolicyState:
        return PolicyState(replica=replica, version=policy.version, content_hash=policy.content_hash, act=acts.reading)

    return router


async def _read_offer(request: Request, version: WeightVersion) -> Offer:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_OFFER_BYTES:
            raise TooLarge(f"an offer has at most {_MOST_OFFER_BYTES} bytes; a bundle is no application/json")
    try:
        offer = Offer.model_validate_json(body)
    except ValueError as error:
        raise InvalidInput(f"the body is no offer of weights: {complaint(error)}") from error
    if offer.version != version:
        raise InvalidInput(f"the request announces version {version}, its offer {offer.version}")
    return offer


async def _lines(events: asyncio.Queue[GrowthEvent]) -> AsyncIterator[bytes]:
    while True:
        event = await events.get()
        yield event.model_dump_json().encode() + b"\n"
        if isinstance(event, TreeGrown | GrowthFailed):
            return


def _describe_tree(tree: ScoredTree, figures: TreeFigures) -> TreeGrown:
    return TreeGrown(
        tree=base64.b64encode(tree.pack()).decode(),
        root_value=figures.root_value,
        is_mixed=figures.mixed_trees > 0,
        ib_score=figures.ib_score,
        cov_eta=figures.cov_eta,
    )


async def _cancel_on_disconnect(request: Request, work: Awaitable[T]) -> T:
    """Awaits `work`; cancels it and raises ClientDisconnect if the client disconnects first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.wait((watching, working))


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
