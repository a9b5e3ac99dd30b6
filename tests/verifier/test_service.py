"""The verifier over HTTP: batches, streams, bounds, deadlines, and failures that are never zeros."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.verifier.checks.check import Case, Check, Judgement, ReportJudgement
from services.verifier.config import MathConfig
from services.verifier.wiring import VerifierService
from shared.protocol.verdict import Outcome, VerdictItem
from tests.verifier.judging import rows_of
from tests.verifier.serving import judge, make_item, serve_verifier
from tests.waiting import wait_until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


class SlowCheck(Check[None]):
    """A kind of the tests: judges after as many seconds as the response says, or fails as it says."""

    kind = "slow"
    is_repeatable = False
    num_cancelled = 0

    def refusal(self) -> str | None:
        return None

    def health(self) -> dict[str, Any]:
        return {}

    def prepare(self, item: VerdictItem) -> Case[None]:
        return Case(item.response, None)

    async def judge(self, cases: Sequence[Case[None]], report: ReportJudgement) -> None:
        await asyncio.gather(*(self._judge(position, case, report) for position, case in enumerate(cases)))

    async def _judge(self, position: int, case: Case[None], report: ReportJudgement) -> None:
        if case.response == "fail":
            raise RuntimeError("the check broke")
        if case.response == "forget":
            return
        try:
            await asyncio.sleep(float(case.response))
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        report(position, Judgement(1.0, Outcome.RIGHT))
        report(position, Judgement(0.0, Outcome.WRONG))  # too late: it has been judged


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served() -> AsyncIterator[tuple[VerifierService, httpx.AsyncClient]]:
    async with serve_verifier(max_pending_items=100, math=MathConfig(workers=1)) as (service, client):
        service.judge.add(SlowCheck())
        yield service, client


@pytest.fixture
def service(served: tuple[VerifierService, httpx.AsyncClient]) -> VerifierService:
    return served[0]


@pytest.fixture
def client(served: tuple[VerifierService, httpx.AsyncClient]) -> httpx.AsyncClient:
    return served[1]


def _item(response: str, kind: str = "slow", key: dict[str, Any] | None = None, item_id: str = "") -> dict[str, Any]:
    return make_item(kind, response, key or {}, item_id or response)


def _math(gold: str, answer: str) -> dict[str, Any]:
    return _item(rf"\boxed{{{answer}}}", "math", {"gold": gold}, item_id=answer)


def _num_pending(service: VerifierService) -> int:
    return int(service.judge.health()["pending_items"])


async def test_a_mixed_batch_is_judged_in_the_order_of_its_items(client: httpx.AsyncClient) -> None:
    tests = {"type": "stdio", "cases": [{"input": "2\n", "output": "4\n"}]}
    verdicts = await judge(
        client,
        _item("0.05"),
        _math("4", "4"),
        _item(r"\boxed{C}", "choice", {"gold": "B"}, "c"),
        _item("print(2 * int(input()))", "code", {"tests": tests}, "p"),
        _item("yes", "exact", {"gold": "yes"}),
        _math("4", "5"),
    )
    assert [verdict["id"] for verdict in verdicts] == ["0.05", "4", "c", "p", "yes", "5"]
    assert [verdict["reward"] for verdict in verdicts] == [1, 1, 0, 1, 1, 0]


async def test_a_stream_has_each_verdict_once_in_the_order_of_completion(client: httpx.AsyncClient) -> None:
    items = [_item("0.4"), _item("0.05"), _math("4", "4"), _item("0.2")]
    seen: list[tuple[str, float]] = []
    start = time.monotonic()
    headers = {"accept": "application/x-ndjson"}
    async with client.stream("POST", "/v1/verdicts", json={"items": items}, headers=headers) as response:
        assert response.headers["content-type"].startswith("application/x-ndjson")
        async for line in response.aiter_lines():
            seen.append((json.loads(line)["id"], time.monotonic() - start))
    assert [item_id for item_id, _ in seen] == ["4", "0.05", "0.2", "0.4"]
    assert seen[-1][1] - seen[0][1] > 0.1, "the first is sent before the last is known"


async def test_what_is_not_judged_by_the_deadline_has_no_reward(client: httpx.AsyncClient) -> None:
    start = time.monotonic()
    quick, slow = await judge(client, _item("0.01"), _item("20"), deadline_seconds=0.5)
    assert time.monotonic() - start < 10
    assert quick["reward"] == 1
    assert slow["reward"] is None
    assert slow["outcome"] == "infrastructure"
    assert "0.5 s" in slow["reason"]


@pytest.mark.parametrize("response", ["fail", "forget"])
async def test_a_check_that_fails_gives_no_reward(client: httpx.AsyncClient, response: str) -> None:
    (verdict,) = await judge(client, _item(response))
    assert verdict["reward"] is None
    assert verdict["outcome"] == "infrastructure"


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (_item("x", "poetry"), "kind 'poetry' is none of"),
        (_item("x", "math"), "answer_key.gold"),
        (_item("x", "math", {"gold": ""}), "answer_key.gold"),
        (_item("x", "math", {"gold": " "}), "states no answer"),
        (_item("x", "math", {"gold": "7" * 20_000}), "states no answer"),
        (_item("x", "math", {"gold": "4", "glod": 1}), "glod"),
        (_item("x", "choice", {"gold": "Paris"}), "no choice"),
        (_item("x", "code", {"tests": {"type": "stdio", "cases": []}}), "cases"),
        (_item("x", "code", {"tests": {}}), "tests"),
        ({"id": "x", "kind": "math"}, "response"),
    ],
)
async def test_a_key_that_can_never_be_judged_is_refused(
    client: httpx.AsyncClient, item: dict[str, Any], says: str
) -> None:
    response = await client.post("/v1/verdicts", json={"items": [_math("4", "4"), item]})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert says in response.text


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff\xfe", b'{"items": []}', b'{"items": [1]}', b"{" * 10_000])
async def test_a_body_that_is_no_batch_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/verdicts", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)


async def test_a_full_queue_answers_429_and_recovers(service: VerifierService, client: httpx.AsyncClient) -> None:
    first = asyncio.create_task(judge(client, *[_item("0.5")] * 90))
    await wait_until_async(lambda: _num_pending(service) == 90)
    response = await client.post("/v1/verdicts", json={"items": [_item("0")] * 11})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert len(await judge(client, *[_item("0")] * 10)) == 10
    assert len(await first) == 90
    assert len(await judge(client, *[_item("0")] * 100)) == 100


async def test_a_client_that_goes_away_from_its_stream_cancels_its_batch(
    service: VerifierService, client: httpx.AsyncClient
) -> None:
    headers = {"accept": "application/x-ndjson"}
    items = [_item("0"), _item("30")]
    async with client.stream("POST", "/v1/verdicts", json={"items": items}, headers=headers) as response:
        await response.aiter_lines().__anext__()
    await wait_until_async(lambda: _num_pending(service) == 0, 5)


async def test_a_client_that_goes_away_before_its_stream_begins_leaves_nothing_pending(
    service: VerifierService,
) -> None:
    messages = [
        {"type": "http.request", "body": json.dumps({"items": [_item("0.01")]}).encode()},
        {"type": "http.disconnect"},
    ]
    headers = [(b"content-type", b"application/json"), (b"accept", b"application/x-ndjson")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/verdicts", "query_string": b""}

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_: Any) -> None:
        await asyncio.sleep(0)  # as a server does whose client reads slowly

    await service.app({**scope, "headers": headers}, receive, send)
    assert not messages
    await wait_until_async(lambda: _num_pending(service) == 0, 5)


async def test_equal_answers_are_judged_once(client: httpx.AsyncClient) -> None:
    item = _math(r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)")
    (first,) = await judge(client, item)
    before = await _cache_hits(client)
    (again,) = await judge(client, item)
    assert again == first
    assert await _cache_hits(client) == before + 1


async def _cache_hits(client: httpx.AsyncClient) -> float:
    series = 'ibtpo_verifier_cache_hits_total{kind="math"} '
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


async def test_health_tells_of_every_kind(client: httpx.AsyncClient) -> None:
    health = (await client.get("/healthz")).json()
    assert health["kinds"]["math"]["workers"] == 1
    assert health["kinds"]["code"]["layers"]
    assert health["kinds"]["code"]["refusal"] is None
    assert (await client.get("/readyz")).status_code == 200


async def test_metrics_count_verdicts_by_kind_and_outcome(client: httpx.AsyncClient) -> None:
    await judge(client, _math("4", "4"), _math("4", "5"), _item("fail"))
    metrics = (await client.get("/metrics")).text
    for kind, outcome in (("math", "right"), ("math", "wrong"), ("slow", "infrastructure")):
        assert f'ibtpo_verifier_verdicts_total{{kind="{kind}",outcome="{outcome}"}} 0.0' not in metrics
    assert 'ibtpo_verifier_verdicts_total{kind="code",outcome="infrastructure"} 0.0' in metrics, "shown from the start"
    assert 'ibtpo_verifier_judge_seconds_bucket{kind="math"' in metrics
    assert "ibtpo_verifier_queue_age_seconds" in metrics


async def test_no_hostile_answer_is_rewarded_over_http(client: httpx.AsyncClient) -> None:
    rows = rows_of("math_attacks.jsonl.gz")
    items = [_item(row["payload"], "math", {"gold": row["gold"]}, row["id"]) for row in rows]
    start = time.monotonic()
    verdicts = await judge(client, *items, deadline_seconds=10)
    assert time.monotonic() - start < 20
    for row, verdict in zip(rows, verdicts, strict=True):
        assert verdict["reward"] == (1.0 if row["expected"] == "accept" else 0.0), row["id"]
