"""Custom kinds: a function in worker processes, or an HTTP endpoint."""

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from pydantic import ValidationError

from services.verifier.config import CustomKindConfig
from shared.runtime.serve import open_listener, serve_in_background
from tests.verifier.serving import judge, make_item, open_verifier, serve_verifier

PAGE = Path(__file__).parents[2] / "docs" / "verifier.md"
FUNCTION = "tests.verifier.worker_functions:reward_length"


async def _judge(client: httpx.AsyncClient, kind: str, *keys: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdicts on the response 12345. All items have the same id, as a caller's may."""
    return await judge(client, *(make_item(kind, "12345", key) for key in keys))


async def test_a_function_gives_rewards_and_its_failures_none() -> None:
    async with open_verifier(kinds={"length": CustomKindConfig(function=FUNCTION, seconds=0.5)}) as client:
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


def _example(name: str) -> str:
    """The code block of docs/verifier.md whose first line is `# name`."""
    (source,) = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(source)


def _kinds(name: str) -> dict[str, Any]:
    return dict(tomllib.loads(_example(name))["verifier"]["kinds"])


async def test_the_page_s_function_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards").mkdir()
    (tmp_path / "my_rewards" / "poetry.py").write_text(_example("my_rewards/poetry.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    async with open_verifier(kinds=_kinds("poetry.toml")) as client:
        right, wrong, none = await _judge(client, "poetry", {"ending": "45"}, {"ending": "x"}, {})
    assert (right["reward"], wrong["reward"], none["reward"]) == (1.0, 0.0, None)


async def test_the_page_s_endpoint_works_as_it_stands() -> None:
    module: dict[str, Any] = {}
    exec(_example("grader.py"), module)
    (kind,) = _kinds("short.toml").values()
    async with serve_in_background(module["app"], open_listener("127.0.0.1", 0, None)) as url:
        path = kind["url"].removeprefix("http://localhost:9000")
        async with open_verifier(kinds={"short": kind | {"url": url + path}}) as client:
            right, wrong = await _judge(client, "short", {"max_words": 1}, {"max_words": 0})
    assert (right["reward"], wrong["reward"]) == (1.0, 0.0)


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
                await asyncio.Event().wait()
            right = len(item["response"]) >= length
            verdicts.append({"id": item["id"], "reward": float(right), "outcome": "right" if right else "wrong"})
        return {"verdicts": verdicts}

    @app.post("/broken")
    async def broken() -> dict[str, Any]:
        return {"score": 1}

    @app.post("/closed")
    async def closed(request: Request) -> dict[str, Any]:
        if request.headers["authorization"] != "Bearer right":
            raise HTTPException(401, "no")
        verdict = {"outcome": "wrong", "reward": 0.25, "rule": "by hand", "isolated": False}
        return {"verdicts": [{"id": item["id"], **verdict} for item in (await request.json())["items"]]}

    return app


async def test_an_endpoint_gives_verdicts_and_its_failures_none() -> None:
    grader = _grader()
    async with (
        serve_in_background(grader, open_listener("127.0.0.1", 0, None)) as url,
        open_verifier(
            kinds={
                "length": CustomKindConfig(url=f"{url}/grade", seconds=0.5),
                "broken": CustomKindConfig(url=f"{url}/broken"),
                "missing": CustomKindConfig(url=f"{url}/nowhere"),
                "down": CustomKindConfig(url="http://127.0.0.1:9/grade"),
                "closed": CustomKindConfig(url=f"{url}/closed", token="wrong"),
                "open": CustomKindConfig(url=f"{url}/closed", token="right"),
            }
        ) as client,
    ):
        right, wrong, forgotten = await _judge(client, "length", {"length": 5}, {"length": 6}, {"length": "forget"})
        assert (right["reward"], wrong["reward"], forgotten["reward"]) == (1.0, 0.0, None)
        assert [v["reward"] for v in await _judge(client, "length", *[{"length": 5}] * 200)] == [1.0] * 200
        for kind, says in (
            ("broken", "verdicts"),
            ("missing", "404"),
            ("down", "cannot be reached"),
            ("closed", "401"),
        ):
            (verdict,) = await _judge(client, kind, {"length": 5})
            assert verdict["reward"] is None
            assert says in verdict["reason"], json.dumps(verdict)
        (late,) = await _judge(client, "length", {"length": "hang"})
        assert late["reward"] is None
        (passed_on,) = await _judge(client, "open", {})
        assert (passed_on["reward"], passed_on["rule"], passed_on["isolated"]) == (0.25, "by hand", False)


async def test_another_verifier_can_be_the_endpoint() -> None:
    async with serve_verifier() as (_, other):
        url = str(other.base_url.join("/v1/verdicts"))
        kind = CustomKindConfig(url=url.replace("//", "//me:s3cret@") + "?key=s3cret")
        async with open_verifier(kinds={"math": kind}) as client:
            four, five = await judge(client, *(make_item("math", rf"\boxed{{{n}}}", {"gold": "4"}) for n in (4, 5)))
            health = (await client.get("/healthz")).json()
    assert (four["reward"], five["reward"]) == (1.0, 0.0)
    assert health["kinds"]["math"]["url"] == url, "a custom kind replaces the built-in one of its name"


@pytest.mark.parametrize(
    "settings", [{}, {"function": "a:b", "url": "http://x"}, {"function": "no colon"}, {"url": "x"}]
)
def test_a_custom_kind_is_a_function_or_an_endpoint(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        CustomKindConfig.model_validate(settings)
