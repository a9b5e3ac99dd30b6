"""The rollout client against a real replica, and against services that answer badly."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Response

from services.demo.task import checkpoint_directory
from services.rollout.config import RolloutConfig
from services.rollout.wiring import build
from shared.clients import RolloutClient
from shared.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    MalformedAnswer,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from shared.protocol.grow import BranchesChosen, DrawGrown, GrowRequest, GrowthEvent, TreeGrown
from shared.protocol.score import ScoringRequest
from shared.runtime.client import http_client
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot, write_manifest
from tests.clients.conftest import TOKEN, Serve

REQUEST = GrowRequest.model_validate({"prompt": "2+3*4=", "growth": {"sampler": "random", "max_tokens": 4}, "seed": 3})
NO_TOKENS = GrowRequest(prompt_ids=(10**6,), growth=REQUEST.growth)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A replica without weights."""
    config = RolloutConfig(run="r", snapshots=tmp_path / "snapshots", token=TOKEN)
    async with (
        serve_in_background(build(config), open_listener("127.0.0.1", 0, TOKEN)) as url,
        http_client(TOKEN, 30.0) as http,
    ):
        yield http, url


def snapshot(tmp_path: Path, number: int) -> Snapshot:
    directory = tmp_path / f"bundle-{number}"
    shutil.copytree(checkpoint_directory(), directory)
    return Snapshot(write_manifest("r", directory, WeightVersion(1, number)), directory)


async def test_weights_are_pushed_and_a_tree_is_grown_from_them(
    served: tuple[httpx.AsyncClient, str], tmp_path: Path
) -> None:
    client = RolloutClient(*served)
    with pytest.raises(Unavailable, match="no weights yet"):
        await client.grow(REQUEST, 10)
    await client.push_weights(snapshot(tmp_path, 2), 60)
    tree = await client.grow(REQUEST, 60)
    assert {span.version for draw in tree.draws for span in draw.spans} == {WeightVersion(1, 2)}
    with pytest.raises(Conflict, match=r"version 1\.1 is older than 1\.2"):
        await client.push_weights(snapshot(tmp_path, 1), 60)
    with pytest.raises(InvalidInput, match="token id 1000000"):
        await client.grow(NO_TOKENS, 60)


async def test_given_continuations_are_scored_in_their_order(
    served: tuple[httpx.AsyncClient, str], tmp_path: Path
) -> None:
    client = RolloutClient(*served)
    items = ({"prompt": "2+3*4=", "continuation": text} for text in ("0", "1", "2+5"))
    request = ScoringRequest.model_validate({"items": tuple(items)})
    with pytest.raises(Unavailable, match="no weights yet"):
        await client.score(request, 10)
    await client.push_weights(snapshot(tmp_path, 1), 60)
    scores = await client.score(request, 60)
    assert [len(one.logprobs) for one in scores] == [1, 1, 3]
    assert {one.version for one in scores} == {WeightVersion(1, 1)}
    assert all(one.logprob == pytest.approx(sum(one.logprobs)) for one in scores)
    bad = ScoringRequest.model_validate({"items": [{"prompt": "2+", "continuation_ids": [10**6]}]})
    with pytest.raises(InvalidInput, match=r"items\.0: token id 1000000"):
        await client.score(bad, 60)
    async with http_client(None, 10.0) as http:
        with pytest.raises(Unauthorized):
            await RolloutClient(http, served[1]).score(request, 10)


async def test_a_watched_tree_reports_its_growth_and_is_the_same_tree(
    served: tuple[httpx.AsyncClient, str], tmp_path: Path
) -> None:
    client = RolloutClient(*served)
    await client.push_weights(snapshot(tmp_path, 1), 60)
    events: list[GrowthEvent] = []
    watched = await client.watch(REQUEST, 60, events.append)
    grown = await client.grow(REQUEST, 60)
    assert [draw.token_ids for draw in watched.draws] == [draw.token_ids for draw in grown.draws]
    assert sum(isinstance(event, DrawGrown) for event in events) == len(watched.draws)
    assert any(isinstance(event, BranchesChosen) for event in events)
    assert isinstance(events[-1], TreeGrown)


async def test_a_failed_growth_is_unavailable_with_its_reason(
    served: tuple[httpx.AsyncClient, str], tmp_path: Path
) -> None:
    client = RolloutClient(*served)
    await client.push_weights(snapshot(tmp_path, 1), 60)
    with pytest.raises(InvalidInput, match=r"could not be grown: .*token id 1000000"):
        await client.watch(NO_TOKENS, 60, lambda event: None)


async def test_the_token_is_needed(served: tuple[httpx.AsyncClient, str]) -> None:
    async with http_client(None, 10.0) as http:
        with pytest.raises(Unauthorized):
            await RolloutClient(http, served[1]).grow(REQUEST, 10)


async def test_errors_name_the_replica() -> None:
    async with http_client(None, 2.0) as http:
        with pytest.raises(Unreachable, match="replica r3 cannot be reached"):
            await RolloutClient(http, "http://127.0.0.1:9", "r3").grow(REQUEST, 2)
        with pytest.raises(Unreachable, match=r"the rollout replica at http://127\.0\.0\.1:9 cannot be reached"):
            await RolloutClient(http, "http://127.0.0.1:9").watch(REQUEST, 2, lambda event: None)


async def test_a_call_ends_at_its_deadline(serve: Serve) -> None:
    router = APIRouter()

    @router.post("/v1/trees")
    async def hang() -> None:
        await asyncio.Event().wait()

    async with serve(router) as served:
        with pytest.raises(DeadlineExceeded, match=r"did not answer"):
            await RolloutClient(*served).grow(REQUEST, 0.2)


NO_TREE = TreeGrown(tree="x", root_value=None, is_mixed=False, ib_score=None, cov_eta=None).model_dump_json().encode()


@pytest.mark.parametrize("body", [b"", b"\x80", b"no tree", b'{"event": "draw"}\n', b'{"event": "other"}\n', NO_TREE])
async def test_an_answer_that_cannot_be_read_is_malformed(serve: Serve, body: bytes) -> None:
    router = APIRouter()

    @router.post("/v1/trees")
    async def answer() -> Response:
        return Response(body)

    async with serve(router) as served:
        with pytest.raises(MalformedAnswer):
            await RolloutClient(*served).grow(REQUEST, 10)
        with pytest.raises(MalformedAnswer):
            await RolloutClient(*served).watch(REQUEST, 10, lambda event: None)
