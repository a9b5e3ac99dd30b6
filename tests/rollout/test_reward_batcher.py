"""The reward batcher over real HTTP: batches, retries, deadlines, and a verifier that is down or lies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from services.rollout.metrics import RolloutMetrics
from services.rollout.reward_batcher import BatchingLimits, RewardBatcher
from services.rollout.rewards import NoVerdict, Reward
from shared.clients import VerifierClient
from shared.protocol.verdict import Outcome, Verdict, VerdictRequest
from shared.runtime.client import http_client
from tests.serving import serve_router
from tests.waiting import wait_until_async


@dataclass
class Judge:
    """A verifier whose answers a test decides."""

    reward: Callable[[str], float | None] = lambda response: float(response == "right")
    batches: list[int] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0
    status: int = 503
    poison: str = "\0"
    breaks: int = 0
    slow_may_end: asyncio.Event = field(default_factory=asyncio.Event)

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.post("/v1/verdicts")
        async def verdicts(request: VerdictRequest) -> Response:
            self.batches.append(len(request.items))
            await asyncio.sleep(self.seconds)
            if any(item.response == self.poison for item in request.items):
                return Response("unjudgeable", status_code=422)
            if self.failures:
                self.failures -= 1
                return Response("down", status_code=self.status)
            return StreamingResponse(self.lines(request), media_type="application/x-ndjson")

        return router

    async def lines(self, request: VerdictRequest) -> AsyncIterator[bytes]:
        """The verdicts, one a line; "slow" ones come last, and where the connection is to break, not at all."""
        for item in sorted(request.items, key=lambda item: item.response == "slow"):
            if item.response == "slow":
                if self.breaks:
                    self.breaks -= 1
                    raise ConnectionResetError("this connection breaks")
                await self.slow_may_end.wait()
            if item.response == "garbled":
                yield b'{"reward": 7}\n'
            verdict = Verdict(
                id=item.id,
                reward=self.reward(item.response),
                outcome=Outcome.RIGHT,
                reason="no worker",
                final_answer=item.response,
            )
            yield verdict.model_dump_json().encode() + b"\n"


@asynccontextmanager
async def client_of(judge: Judge, **limits: float) -> AsyncIterator[RewardBatcher]:
    async with (
        serve_router(judge.router()) as url,
        http_client(None, 5.0) as http,
        RewardBatcher(VerifierClient(http, url), BatchingLimits(**limits), RolloutMetrics()) as client,  # type: ignore[arg-type]
    ):
        yield client


async def reward(client: RewardBatcher, kind: str, response: str, answer_key: dict[str, Any]) -> float:
    return (await client.reward(kind, response, answer_key)).value


async def no_verdict(client: RewardBatcher, response: str = "right") -> NoVerdict:
    """Why an answer has none."""
    with pytest.raises(NoVerdict) as missing:
        await reward(client, "exact", response, {})
    return missing.value


async def reward_or_none(client: RewardBatcher, response: str) -> float | None:
    try:
        return await reward(client, "exact", response, {})
    except NoVerdict:
        return None


async def test_a_reward_comes_with_the_final_answer_that_it_was_given_for() -> None:
    async with client_of(Judge()) as client:
        assert await client.reward("exact", "right", {}) == Reward(1.0, "right")


async def test_answers_that_finish_together_share_requests() -> None:
    judge = Judge(seconds=0.05)
    async with client_of(judge, max_requests=1) as client:
        answers = ["right" if i % 3 else "wrong" for i in range(60)]
        rewards = await asyncio.gather(*(reward(client, "exact", answer, {"gold": "x"}) for answer in answers))
    assert rewards == [float(answer == "right") for answer in answers]
    assert sum(judge.batches) == 60
    assert len(judge.batches) <= 3


async def test_a_passing_failure_is_ridden_out() -> None:
    judge = Judge(failures=2)
    async with client_of(judge, verdict_seconds=5) as client:
        assert await reward(client, "exact", "right", {}) == 1.0
    assert len(judge.batches) == 3


async def test_a_refusal_that_no_retry_can_mend_is_no_verdict_at_once() -> None:
    judge = Judge(failures=1, status=422)
    async with client_of(judge, verdict_seconds=30) as client:
        async with asyncio.timeout(5):
            missing = await no_verdict(client)
    assert missing.is_final
    assert str(missing).startswith("down (422 from ")
    assert len(judge.batches) == 1


async def test_a_token_that_the_verifier_refuses_is_the_reason_of_all_its_answers_and_may_be_right_elsewhere() -> None:
    judge = Judge(failures=1, status=401, seconds=0.02)
    async with client_of(judge, verdict_seconds=30, max_requests=1) as client, asyncio.timeout(5):
        missing = await asyncio.gather(*(no_verdict(client) for _ in range(5)))
    assert {(one.is_final, str(one)[:15]) for one in missing} == {(False, "down (401 from ")}
    assert judge.batches == [5]


async def test_an_item_that_is_refused_takes_no_neighbour_along() -> None:
    judge = Judge(poison="poison", seconds=0.02)
    async with client_of(judge, max_requests=1) as client:
        answers = ["right", "poison", *["right"] * 9, "wrong"]
        rewards = await asyncio.gather(*(reward_or_none(client, answer) for answer in answers))
    assert rewards == [{"right": 1.0, "wrong": 0.0, "poison": None}[answer] for answer in answers]


@pytest.mark.parametrize(
    ("response", "key", "is_final"),
    [("half \ud800", {}, False), ("right", {"gold": "\udfff"}, True), ("right", {"gold": float("inf")}, True)],
)
async def test_what_cannot_be_sent_has_no_verdict_and_takes_no_neighbour_along(
    response: str, key: dict[str, Any], is_final: bool
) -> None:
    async with client_of(Judge()) as client:
        bad, good = await asyncio.gather(
            reward(client, "math", response, key), reward(client, "math", "right", {}), return_exceptions=True
        )
    assert good == 1.0
    assert isinstance(bad, NoVerdict)
    assert (bad.is_final, "cannot be sent" in str(bad)) == (is_final, True)


async def test_a_verdict_that_cannot_be_read_takes_no_neighbour_along() -> None:
    async with client_of(Judge()) as client:
        assert await asyncio.gather(*(reward(client, "math", text, {}) for text in ("garbled", "right"))) == [0.0, 1.0]


async def test_an_answer_does_not_wait_for_a_slow_neighbour() -> None:
    judge = Judge()
    async with client_of(judge, max_requests=1) as client, asyncio.timeout(5):
        slow = asyncio.create_task(reward(client, "code", "slow", {}))
        assert await reward(client, "code", "right", {}) == 1.0
        assert not slow.done()
        judge.slow_may_end.set()
        assert await slow == 0.0
    assert judge.batches == [2]


async def test_an_answer_in_flight_does_not_outwait_the_replica() -> None:
    judge = Judge()
    async with client_of(judge) as client:
        asked = asyncio.create_task(no_verdict(client, "slow"))
        await wait_until_async(lambda: judge.batches, 5)
        await client.__aexit__()
        assert "none came in time" in str(await asyncio.wait_for(asked, 5))
        judge.slow_may_end.set()


async def test_only_what_a_broken_connection_left_open_is_asked_again() -> None:
    judge = Judge(breaks=1)
    judge.slow_may_end.set()
    async with client_of(judge, max_requests=1) as client, asyncio.timeout(5):
        assert await asyncio.gather(*(reward(client, "code", text, {}) for text in ("right", "slow"))) == [1.0, 0.0]
    assert judge.batches == [2, 1]


async def test_a_slow_verifier_costs_a_leaf_no_more_than_its_deadline() -> None:
    async with client_of(Judge(seconds=3), verdict_seconds=0.3) as client:
        async with asyncio.timeout(2):
            assert "0.3 s" in str(await no_verdict(client))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://verifier:port", "verifier"])
async def test_a_verifier_that_cannot_be_reached_gives_no_verdict_and_is_not_ready(url: str) -> None:
    async with http_client(None, 1.0) as http:
        limits = BatchingLimits(verdict_seconds=0.5)
        async with RewardBatcher(VerifierClient(http, url), limits, RolloutMetrics()) as client:
            assert await client.is_ready()
            for _ in range(6):  # more than there are senders
                assert "cannot be reached" in str(await no_verdict(client))
            assert not await client.is_ready()


async def test_why_no_verdict_comes_is_known_until_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rollout.reward_batcher._PROBLEM_SECONDS", 0.0)
    monkeypatch.setattr("services.rollout.reward_batcher._SILENT_SECONDS", 0.0)
    judge = Judge(failures=1)
    async with client_of(judge) as rewards:
        right = asyncio.create_task(rewards.reward("math", "right", {}))
        await wait_until_async(lambda: "503" in rewards.problem)
        assert (await right).value == 1.0
        slow = asyncio.create_task(rewards.reward("math", "slow", {}))
        await wait_until_async(lambda: "wait for the verifier" in rewards.problem)
        judge.slow_may_end.set()
        await slow
        assert rewards.problem == ""


async def test_it_is_ready_again_once_the_verifier_answers() -> None:
    judge = Judge(failures=1, status=422)
    async with client_of(judge) as client:
        await no_verdict(client)
        assert await client.is_ready()


@pytest.mark.parametrize("reward", [0.0, 0.25, None])
async def test_fractions_and_nulls_pass_through(reward: float | None) -> None:
    async with client_of(Judge(reward=lambda response: reward)) as client:
        assert await reward_or_none(client, "print()") == reward


async def test_a_null_comes_with_the_verifiers_reason() -> None:
    async with client_of(Judge(reward=lambda response: None)) as client:
        assert "the verifier gave no reward: no worker" in str(await no_verdict(client))
