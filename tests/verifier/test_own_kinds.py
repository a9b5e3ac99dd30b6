"""Kinds of the user's own: a function in processes of its own, an endpoint over HTTP."""

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError

from services.verifier.config import CustomKindConfig, MathConfig, VerifierConfig
from services.verifier.wiring import VerifierService
from shared.runtime.serve import open_door, serving

FUNCTION = "tests.verifier.worker_functions:reward_length"


@asynccontextmanager
async def _verifier(**kinds: CustomKindConfig) -> AsyncIterator[httpx.AsyncClient]:
    service = VerifierService(VerifierConfig(math=MathConfig(workers=0), kinds=kinds))
    async with service.app.router.lifespan_context(service.app):
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://verifier") as client:
            yield client


async def _judge(client: httpx.AsyncClient, kind: str, *keys: dict[str, Any]) -> list[dict[str, Any]]:
    items = [{"id": str(n), "kind": kind, "response": "12345", "answer_key": key} for n, key in enumerate(keys)]
    response = await client.post("/v1/verdicts", json={"items": items})
    assert response.status_code == 200, response.text
    return list(response.json()["verdicts"])


async def test_a_function_gives_rewards_and_its_failures_none() -> None:
    async with _verifier(length=CustomKindConfig(function=FUNCTION, seconds=0.5)) as client:
        await _judge(client, "length", {"length": 1})
        verdicts = await _judge(
            client,
            "length",
            {"length": 5},
            {"length": 6},
            {},
            {"length": "fail"},
            {"length": "two"},
            {"length": "hang"},
        )
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.5, None, None, None, None]
    assert [verdict["outcome"] for verdict in verdicts[:3]] == ["right", "wrong", "infrastructure"]
    assert "RuntimeError: cannot" in verdicts[3]["reason"]
    assert "2.0" in verdicts[4]["reason"]


async def test_the_example_of_the_page_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text()
    (source,) = re.findall(r"```python\n# my_rewards/poetry.py\n(.*?)```", page, re.DOTALL)
    (settings,) = re.findall(r"```toml\n(\[verifier\.kinds\.poetry\].*?)```", page, re.DOTALL)
    package = tmp_path / "my_rewards"
    package.mkdir()
    (package / "poetry.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    kinds = tomllib.loads(settings)["verifier"]["kinds"]
    async with _verifier(poetry=CustomKindConfig.model_validate(kinds["poetry"])) as client:
        right, wrong, none = await _judge(client, "poetry", {"ending": "45"}, {"ending": "x"}, {})
    assert (right["reward"], wrong["reward"], none["reward"]) == (1.0, 0.0, None)


def _grader() -> FastAPI:
    """What a user would write: an endpoint that speaks the verifier's protocol."""
    app = FastAPI()

    @app.post("/grade")
    async def grade(request: Request) -> dict[str, Any]:
        body = await request.json()
        verdicts = []
        for item in body["items"]:
            length = item["answer_key"]["length"]
            if length == "forget":
                continue
            if length == "hang":
                await asyncio.sleep(30)
            right = len(item["response"]) >= length
            verdicts.append({"id": item["id"], "reward": float(right), "outcome": "right" if right else "wrong"})
        return {"verdicts": verdicts}

    @app.post("/broken")
    async def broken() -> dict[str, Any]:
        return {"score": 1}

    app.state.url = ""
    return app


async def test_an_endpoint_gives_verdicts_and_its_failures_none() -> None:
    grader = _grader()
    async with (
        serving(grader, open_door("127.0.0.1", 0, None)) as url,
        _verifier(
            length=CustomKindConfig(url=f"{url}/grade", seconds=0.5),
            broken=CustomKindConfig(url=f"{url}/broken"),
            missing=CustomKindConfig(url=f"{url}/nowhere"),
            down=CustomKindConfig(url="http://127.0.0.1:9/grade"),
        ) as client,
    ):
        right, wrong, forgotten = await _judge(client, "length", {"length": 5}, {"length": 6}, {"length": "forget"})
        assert (right["reward"], wrong["reward"], forgotten["reward"]) == (1.0, 0.0, None)
        assert [v["reward"] for v in await _judge(client, "length", *[{"length": 5}] * 200)] == [1.0] * 200
        for kind, says in (("broken", "verdicts"), ("missing", "404"), ("down", "cannot be reached")):
            (verdict,) = await _judge(client, kind, {"length": 5})
            assert verdict["reward"] is None
            assert says in verdict["reason"], json.dumps(verdict)
        (late,) = await _judge(client, "length", {"length": "hang"})
        assert late["reward"] is None


@pytest.mark.parametrize(
    "settings", [{}, {"function": "a:b", "url": "http://x"}, {"function": "no colon"}, {"url": "x"}]
)
def test_an_own_kind_is_a_function_or_an_endpoint(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        CustomKindConfig.model_validate(settings)
