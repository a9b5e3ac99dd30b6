"""The verifier client against a real verifier, and against services that answer badly."""

from collections.abc import AsyncIterator

import pytest
from fastapi import APIRouter, Response

from services.verifier.config import MathConfig, VerifierConfig
from services.verifier.wiring import build
from shared.clients import VerifierClient
from shared.errors import InvalidInput, MalformedAnswer, Unreachable
from shared.protocol.verdict import Outcome, Verdict, VerdictItem
from shared.runtime.client import http_client
from shared.runtime.serve import open_listener, serve_in_background
from tests.clients.conftest import TOKEN, Serve


def item(name: str, response: str, kind: str = "exact") -> VerdictItem:
    return VerdictItem(id=name, kind=kind, response=response, answer_key={"gold": "4"})


ITEMS = (item("a", "4"), item("b", "5"), item("c", "4"))


@pytest.fixture
async def verifier() -> AsyncIterator[VerifierClient]:
    app = build(VerifierConfig(token=TOKEN, math=MathConfig(workers=1)))
    async with serve_in_background(app, open_listener("127.0.0.1", 0, TOKEN)) as url, http_client(TOKEN, 30.0) as http:
        yield VerifierClient(http, url)


async def test_verdicts_come_in_the_order_of_the_items(verifier: VerifierClient) -> None:
    assert await verifier.is_ready()
    verdicts = await verifier.judge(ITEMS, 30)
    assert [(verdict.id, verdict.reward) for verdict in verdicts] == [("a", 1.0), ("b", 0.0), ("c", 1.0)]
    assert verdicts[1].outcome is Outcome.WRONG


async def test_each_verdict_is_reported(verifier: VerifierClient) -> None:
    verdicts: list[Verdict] = []
    await verifier.judge_each(ITEMS, 30, verdicts.append, deadline_seconds=20)
    assert {verdict.id: verdict.reward for verdict in verdicts} == {"a": 1.0, "b": 0.0, "c": 1.0}


async def test_an_unknown_kind_is_invalid_input(verifier: VerifierClient) -> None:
    with pytest.raises(InvalidInput, match="kind"):
        await verifier.judge((item("a", "4", kind="no-such-kind"),), 30)


async def test_nobody_is_there() -> None:
    async with http_client(None, 2.0) as http:
        client = VerifierClient(http, "http://127.0.0.1:9/")
        assert not await client.is_ready()
        with pytest.raises(Unreachable, match=r"the verifier at http://127\.0\.0\.1:9"):
            await client.judge(ITEMS, 2)


async def test_an_answer_that_cannot_be_read_is_malformed(serve: Serve) -> None:
    router = APIRouter()

    @router.post("/v1/verdicts")
    async def answer() -> Response:
        return Response(b'{"verdicts": 3}\n')

    async with serve(router) as (http, url):
        client = VerifierClient(http, url)
        with pytest.raises(MalformedAnswer):
            await client.judge(ITEMS, 10)
        with pytest.raises(MalformedAnswer):
            await client.judge_each(ITEMS, 10, lambda verdict: None)


async def test_a_stream_that_breaks_off_is_unreachable_and_keeps_what_came(serve: Serve) -> None:
    router = APIRouter()

    @router.post("/v1/verdicts")
    async def answer() -> Response:
        line = Verdict(id="a", reward=1.0, outcome=Outcome.RIGHT).model_dump_json().encode() + b"\n"
        return Response(line, headers={"Content-Length": str(len(line) + 10)})

    async with serve(router) as (http, url):
        verdicts: list[Verdict] = []
        with pytest.raises(Unreachable):
            await VerifierClient(http, url).judge_each(ITEMS, 10, verdicts.append)
        assert [verdict.id for verdict in verdicts] == ["a"]
