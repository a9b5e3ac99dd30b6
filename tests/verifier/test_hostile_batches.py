"""Answers that would stop the service, or spoil their neighbours: each is judged alone, and the others beside it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response

from services.verifier.config import CustomKindConfig
from services.verifier.judge_file import judge_file
from shared.runtime.serve import open_listener, serve_in_background
from tests.verifier.serving import judge, make_item, serve_verifier

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRINTS_1 = {"tests": {"type": "stdio", "cases": [{"input": "", "output": "1"}]}}
FAILS = "```python\ndef f():\n    raise ValueError('\\ud800')\n```"
FAILING_TESTS = {"tests": {"type": "assert", "entry_point": "f", "asserts": ["assert f() == 1"]}}
SPACES = " " * 100_000
DENSE_BLOCK = "```python\n" + "a;" * 32_000 + "\n```\n"
ROOTS = "+".join([r"\sqrt[3]{2^{19990}+1}"] * 80)
EQUAL_ROOTS = " or ".join(rf"\boxed{{\sqrt{{2}}+{'0+' * n}1-1}}" for n in range(64))
# what is asked, what is answered, and the reward owed; each once took seconds to hours
SLOW: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "breaks behind the box": ("math", {"gold": "4"}, "So \\boxed{4}" + "\n" * 200_000, 1.0),
    "spaces behind the box": ("math", {"gold": "4"}, "So \\boxed{4}$" + " " * 200_000 + "$%", 1.0),
    "spaces in the box": ("math", {"gold": "4"}, "\\boxed{-" + " " * 3_900 + "x}", 0.0),
    "spaces in a fraction": ("math", {"gold": "4"}, "\\boxed{\\frac{" + " " * 3_900 + "x}{2}}", 0.0),
    "boxes in a long text": ("math", {"gold": "4"}, "x" * 8_000_000 + "\\boxed " * 63 + "\\boxed{4}", 1.0),
    "roots of long numbers": ("math", {"gold": "4"}, f"\\boxed{{{ROOTS}}}", 0.0),
    "many equal boxes": ("math", {"gold": "\\sqrt{2}"}, EQUAL_ROOTS, 0.0),
    "capital letters": ("choice", {"gold": "A"}, "\\boxed{" + "A B C D E F G H I J " * 40 + "?}", 0.0),
    "an answer of spaces": ("choice", {"gold": "A"}, "x\nanswer" + " " * 900 + "B C", 0.0),
    "millions of words": ("exact", {"gold": "a a"}, "a " * 4_000_000, 0.0),
    "a fence of blanks": ("code", PRINTS_1, f"```{SPACES}`\nprint(1)", 0.0),
    "a fence of letters": ("code", PRINTS_1, "```" + "a" * 100_000 + "`\nprint(1)", 0.0),
    "a fence of tildes": ("code", PRINTS_1, "~" * 100_000 + "`\nprint(1)", 0.0),
    "long blocks": ("code", PRINTS_1, DENSE_BLOCK * 8, 0.0),
    "a million lines": ("code", PRINTS_1, "\n" * 1_000_000 + "```\nprint(1)\n```", 1.0),
    "output of breaks": ("code", PRINTS_1, "print(2); print('\\n' * 4_000_000)", 0.0),
    "errors of breaks": ("code", PRINTS_1, "import sys; sys.stderr.write('a\\n' * 2_000_000); exit(1)", 0.0),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serve_verifier() as (_, client):
        yield client


@pytest.mark.parametrize("name", SLOW)
async def test_a_slow_answer_is_judged_in_bounded_time_while_others_are_served(
    client: httpx.AsyncClient, name: str
) -> None:
    kind, key, response, reward = SLOW[name]
    waits: list[float] = []
    judging = asyncio.create_task(judge(client, make_item(kind, response, key), deadline_seconds=25))
    while not judging.done():
        start = time.perf_counter()
        assert (await client.get("/healthz")).status_code == 200
        waits.append(time.perf_counter() - start)
        await asyncio.wait([judging], timeout=0.005)
    (verdict,) = await judging
    assert verdict["reward"] == reward, verdict
    # alone, it is milliseconds, but for the one in which a body of megabytes is read; a busy machine adds to that
    assert sum(wait > 0.25 for wait in waits) <= 1 + len(waits) // 100
    assert max(waits) < 2


VAST: dict[str, bytes] = {
    "numbers for items": b'{"items": [' + b"1," * 500_000 + b"1]}",
    "unknown fields": b'{"items": [], ' + b",".join(b'"f%d": 1' % n for n in range(100_000)) + b"}",
    "numbers in a key": b'{"items": [{"id": "1", "kind": "math", "response": "", "answer_key": {"gold": "1", "x": ['
    + b"1," * 500_000
    + b"1]}}]}",
}


@pytest.mark.parametrize("name", VAST)
async def test_a_body_that_is_wrong_in_very_many_places_is_refused_soon(client: httpx.AsyncClient, name: str) -> None:
    start = time.perf_counter()
    response = await client.post("/v1/verdicts", content=VAST[name], headers={"content-type": "application/json"})
    assert (response.status_code, len(response.content) < 20_000) == (422, True)
    assert time.perf_counter() - start < 5  # listing every fault once took half a minute


async def test_the_largest_limits_cost_what_the_program_uses(client: httpx.AsyncClient) -> None:
    most = {"memory_bytes": 2**40 - 1, "output_bytes": 2**30, "wall_seconds": 600, "cpu_seconds": 600}
    (verdict,) = await judge(client, make_item("code", "```python\nprint(1)\n```", PRINTS_1, limits=most))
    assert verdict["reward"] == 1.0


async def test_long_tests_are_read_beside_the_loop(client: httpx.AsyncClient) -> None:
    answer, waits = "```python\ndef f(x): return x\n```", list[float]()
    long = {"tests": {"type": "assert", "entry_point": "f", "asserts": ["assert f([" + "1," * 90_000 + "])"]}}
    broken = {"tests": {"type": "assert", "entry_point": "f", "asserts": ["assert f(1)\n" * 9_000 + "("]}}
    judging = asyncio.create_task(judge(client, make_item("code", answer, long), deadline_seconds=25))
    while not judging.done():
        start = time.perf_counter()
        assert (await client.get("/healthz")).status_code == 200
        waits.append(time.perf_counter() - start)
        await asyncio.wait([judging], timeout=0.005)
    assert [verdict["reward"] for verdict in await judging] == [1.0]
    assert sum(wait > 0.25 for wait in waits) <= max(1, len(waits) // 20), "read on the loop it would be every one"
    response = await client.post("/v1/verdicts", json={"items": [make_item("code", answer, broken)]})
    assert (response.status_code, "are no Python" in response.text) == (422, True)


async def test_a_batch_of_costly_answers_lets_others_in_between(client: httpx.AsyncClient) -> None:
    items = [make_item("math", f"\\boxed{{{ROOTS}+{n}}}", {"gold": "4"}) for n in range(60)]
    judging = asyncio.create_task(judge(client, *items, deadline_seconds=60))
    num_served = 0
    while not judging.done():
        assert (await client.get("/healthz")).status_code == 200
        num_served += 1
    assert num_served > 20
    assert {verdict["reward"] for verdict in await judging} == {0.0}


HALF = "half \ud800"
TEXT_BESIDE_HALF = [
    make_item("exact", "yes", {"gold": "yes"}, "first"),
    make_item("exact", HALF, {"gold": "yes"}, "response"),
    make_item("exact", "yes", {"gold": HALF}, "key"),
    make_item("code", FAILS, FAILING_TESTS, "reason"),
    make_item("exact", "yes", {"gold": "yes"}, HALF),
    make_item("exact", "no", {"gold": "yes"}, "last"),
]
REWARDS = {"first": 1.0, "response": None, "key": None, "reason": 0.0, "half ?": None, "last": 0.0}


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_half_a_surrogate_pair_costs_no_other_item_its_verdict(
    client: httpx.AsyncClient, accept: str, ensure_ascii: bool
) -> None:
    body = json.dumps({"items": TEXT_BESIDE_HALF}, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
    headers = {"content-type": "application/json", "accept": accept}
    response = await client.post("/v1/verdicts", content=body, headers=headers)
    assert response.status_code == 200, response.text
    lines = response.text.splitlines()
    verdicts = response.json()["verdicts"] if accept == "application/json" else [json.loads(line) for line in lines]
    assert {verdict["id"]: verdict["reward"] for verdict in verdicts} == REWARDS
    reasons = {verdict["id"]: verdict["reason"] for verdict in verdicts}
    assert "surrogate" in reasons["response"]
    assert reasons["reason"] == "ValueError: ?"
    assert (await client.get("/healthz")).json()["pending_items"] == 0


@pytest.mark.parametrize(
    "body", [rb'["\ud800"]', rb'{"items": "\ud800"}', rb'{"items": ["\ud800"]}', b'{"items": \xff']
)
async def test_a_body_that_is_no_batch_stays_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/verdicts", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)


async def test_a_row_with_half_a_surrogate_pair_costs_no_other_row_its_verdict(tmp_path: Path) -> None:
    rows, verdicts = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    rows.write_text("".join(json.dumps(item) + "\n" for item in TEXT_BESIDE_HALF), encoding="utf-8")
    assert await asyncio.to_thread(judge_file, rows, verdicts) == 1
    judged = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()]
    assert {row["id"]: row["reward"] for row in judged} == REWARDS
    assert "surrogate" in judged[1]["error"]


async def test_an_endpoint_s_verdict_that_cannot_be_read_costs_no_other_item_its_own() -> None:
    endpoint = FastAPI()

    @endpoint.post("/")
    async def grade(request: Request) -> Response:
        items = (await request.json())["items"]
        reasons = [item["response"].replace("bad", "\ud800") for item in items]
        verdicts = [
            {"id": item["id"], "reward": 1.0, "outcome": "right", "reason": reason}
            for item, reason in zip(items, reasons, strict=True)
        ]
        return Response(json.dumps({"verdicts": verdicts}), media_type="application/json")

    async with (
        serve_in_background(endpoint, open_listener("127.0.0.1", 0, None)) as url,
        serve_verifier(kinds={"graded": CustomKindConfig(url=url)}) as (_, client),
    ):
        verdicts = await judge(client, *(make_item("graded", response, {}) for response in ("a", "bad", "b")))
    assert [verdict["reward"] for verdict in verdicts] == [1.0, None, 1.0]
    assert "cannot be read" in verdicts[1]["reason"]
