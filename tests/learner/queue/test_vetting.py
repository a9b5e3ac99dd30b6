"""Answer keys before a run: a real verifier reads them, and its reasons name the rows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.learner.queue.problems import EncodedProblem
from services.learner.queue.vetting import KeyVetting, find_refusals
from services.verifier.config import CustomKindConfig, MathConfig, VerifierConfig
from services.verifier.wiring import build
from shared.clients import VerifierClient
from shared.errors import InvalidInput, Unavailable
from shared.protocol.verdict import VerdictItem
from shared.runtime.client import http_client
from shared.runtime.serve import open_listener, serve_in_background

TOKEN = "3f9c1b7e5a2d48069cb1e7f0d4a86253"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    mine = CustomKindConfig(function="tests.verifier.worker_functions:reward_length", workers=1)
    app = build(VerifierConfig(token=TOKEN, math=MathConfig(workers=0), kinds={"mine": mine}))
    async with serve_in_background(app, open_listener("127.0.0.1", 0, TOKEN)) as served:
        yield served


def problems(*keys: dict[str, Any], kind: str = "math") -> list[EncodedProblem]:
    return [
        EncodedProblem(f"p{row}", (3,), kind, key, where=f"rows.jsonl:{row}") for row, key in enumerate(keys, start=1)
    ]


async def vet(url: str, rows: list[EncodedProblem], token: str = TOKEN) -> None:
    async with http_client(token, 30.0) as http:
        await KeyVetting(VerifierClient(http, url), rows).vet()


async def test_good_keys_pass_and_a_custom_kind_is_asked_once_and_never_refused_for_its_verdict(url: str) -> None:
    await vet(url, [*problems(*({"gold": str(row)} for row in range(600))), *problems({"a": 1}, {"b": 2}, kind="mine")])


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        ("maths", {"gold": "18"}, "kind 'maths' is none of: choice, code, exact, math, mine"),
        ("math", {"gold": 18}, "answer_key.gold: Input should be a valid string"),
        ("math", {"glod": "18"}, "answer_key.gold: Field required"),
        ("math", {}, "answer_key.gold: Field required"),
        ("choice", {"gold": "18", "choices": 3}, "answer_key"),
        ("code", {"gold": "18"}, "answer_key"),
    ],
)
async def test_a_row_that_can_never_be_judged_is_named_with_the_verifiers_reason(
    url: str, kind: str, key: dict[str, Any], reason: str
) -> None:
    rows = [*problems(*({"gold": str(row)} for row in range(300))), *problems({}, {}, key, kind=kind)[2:]]
    with pytest.raises(InvalidInput) as refused:
        await vet(url, rows)
    assert "item 'rows.jsonl:3'" in str(refused.value)
    assert reason in str(refused.value)


async def test_the_first_rows_of_many_are_named(url: str) -> None:
    wrong = problems(*({"gold": row} for row in range(700)))
    with pytest.raises(InvalidInput, match=r"rows\.jsonl:1'.*rows\.jsonl:5'.*; and perhaps more$"):
        await vet(url, wrong)


async def test_a_wrong_token_is_said_and_a_verifier_that_is_away_is_waited_for(url: str) -> None:
    with pytest.raises(InvalidInput, match="the verifier refuses the learner's token"):
        await vet(url, problems({"gold": "1"}), token=TOKEN[::-1])
    with pytest.raises(Unavailable):
        await vet("http://127.0.0.1:9", problems({"gold": "1"}))


async def test_every_refused_item_is_named_with_its_reason(url: str) -> None:
    keys = {f"p{number}": {"gold": "" if number % 40 == 7 else str(number)} for number in range(100)}
    items = [VerdictItem(id=name, kind="math", response="", answer_key=key) for name, key in keys.items()]
    async with http_client(TOKEN, 30.0) as http:
        refused = await find_refusals(VerifierClient(http, url), items)
    assert refused.keys() == {"p7", "p47", "p87"}
    assert all(reason.startswith("answer_key.gold: ") for reason in refused.values())
