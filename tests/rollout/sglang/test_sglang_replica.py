"""A whole replica over HTTP with the SGLang engine: weights in, trees out, not ready while its server is away."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import pytest
from fastapi import FastAPI, Response

from services.demo.task import checkpoint_directory
from services.rollout.config import EngineKind, RolloutConfig
from services.rollout.wiring import RolloutService
from shared.protocol.tree import ScoredTree
from shared.protocol.verdict import Outcome, Verdict, VerdictRequest
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import stream_bundle, write_manifest
from tests.rollout.sglang.conftest import config_of
from tests.waiting import wait_until_async

GROW = {
    "prompt": "2+3*4=",
    "growth": {"sampler": "ib", "max_tokens": 30},
    "kind": "coin",
    "answer_key": {},
    "seed": 3,
}
PACKED = {"accept": "application/msgpack"}


def coin_verifier() -> FastAPI:
    """A verifier to which one answer in two is right."""
    app = FastAPI()

    @app.post("/v1/verdicts")
    async def judge(request: VerdictRequest) -> Response:
        rewards = [float(crc32(item.response.encode()) % 2) for item in request.items]
        verdicts = [
            Verdict(id=item.id, reward=reward, outcome=Outcome.RIGHT if reward else Outcome.WRONG)
            for item, reward in zip(request.items, rewards, strict=True)
        ]
        lines = "".join(f"{verdict.model_dump_json()}\n" for verdict in verdicts)
        return Response(lines, media_type="application/x-ndjson")

    return app


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[tuple[RolloutService, httpx.AsyncClient]]:
    """A replica that launches the contract-speaking server."""
    async with AsyncExitStack() as stack:
        verifier_url = await stack.enter_async_context(
            serve_in_background(coin_verifier(), open_listener("127.0.0.1", 0, None))
        )
        config = RolloutConfig(
            run="r",
            engine=EngineKind.SGLANG,
            sglang=config_of("--tokens", "12", "--token-seconds", "0.001", "--start-seconds", "0.3"),
            snapshots=tmp_path / "snapshots",
            verifier_url=verifier_url,
        )
        service = RolloutService(config)
        url = await stack.enter_async_context(serve_in_background(service.app, open_listener("127.0.0.1", 0, None)))
        yield service, await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))


async def push(client: httpx.AsyncClient, tmp_path: Path, version: WeightVersion) -> None:
    directory = tmp_path / "bundle"
    if not directory.exists():
        shutil.copytree(checkpoint_directory(), directory, ignore=shutil.ignore_patterns("*.md"))
    manifest = write_manifest("r", directory, version)
    answer = await client.put(f"/v1/weights/{version}", content=stream_bundle(manifest, directory))
    assert answer.status_code == 200, answer.text


async def test_trees_grow_on_pushed_weights_and_share_their_prefixes(replica: Any, tmp_path: Path) -> None:
    _, client = replica
    assert (await client.get("/readyz")).status_code == 503
    await push(client, tmp_path, WeightVersion(1, 1))
    assert (await client.get("/readyz")).status_code == 200
    tree = ScoredTree.unpack((await client.post("/v1/trees", json=GROW, headers=PACKED)).content)
    assert len(tree.draws) == 12
    assert tree.usage.cached_tokens == tree.usage.reusable_tokens > 0
    await push(client, tmp_path, WeightVersion(1, 2))
    tree = ScoredTree.unpack((await client.post("/v1/trees", json=GROW, headers=PACKED)).content)
    assert tree.oldest_version == WeightVersion(1, 2)


async def test_one_scrape_has_the_series_of_the_replica_and_of_its_server(replica: Any, tmp_path: Path) -> None:
    service, client = replica
    await push(client, tmp_path, WeightVersion(1, 1))
    await client.post("/v1/trees", json=GROW)
    await service.engine.scrape()
    text = (await client.get("/metrics")).text
    assert "sglang:realtime_tokens_total" in text
    assert re.search(r'^ibtpo_rollout_engine_up\{run=".*"\} 1.0$', text, re.MULTILINE)
    assert "ibtpo_rollout_trees_total" in text


async def test_while_its_server_restarts_the_replica_is_not_ready_and_trees_wait(replica: Any, tmp_path: Path) -> None:
    service, client = replica
    await push(client, tmp_path, WeightVersion(1, 1))
    growing = [asyncio.create_task(client.post("/v1/trees", json={**GROW, "seed": seed})) for seed in range(6)]
    await wait_until_async(lambda: service.trees.trees_in_flight == 6)
    os.kill(service.engine.server.pid, signal.SIGKILL)
    await wait_until_async(lambda: not service.policy.is_serving)
    assert (await client.get("/readyz")).status_code == 503
    assert {(await tree).status_code for tree in growing} == {200}
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/v1/policy")).json()["version"] == asdict(WeightVersion(1, 1))
