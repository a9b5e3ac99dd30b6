"""Engines over a contract-speaking server, as a child process like the real one."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import save_file

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, Request, Sampling
from services.rollout.engines.sglang import ManagedServer, SglangEngine, SglangMetrics
from services.rollout.engines.sglang.server import Server
from shared.tree.draw import WeightVersion
from tests.waiting import wait_until_async

SERVER = Path(__file__).with_name("contract_server.py")
STOP = frozenset({1})


def request(token_ids: tuple[int, ...] = (4, 5, 6), max_tokens: int = 8, **sampling: Any) -> Request:
    return Request(token_ids, max_tokens, Sampling(**sampling), STOP, seed=0)


@dataclass(slots=True)
class Rig:
    """An engine with its server, and access to the server's test routes."""

    engine: SglangEngine
    server: Server
    registry: CollectorRegistry

    @property
    def pid(self) -> int:
        assert isinstance(self.server, ManagedServer)
        assert self.server.pid is not None
        return self.server.pid

    async def fault(self, path: str, fault: str, times: int = 1) -> None:
        async with httpx.AsyncClient() as http:
            await http.post(f"{self.server.url}/test/fault", json={"path": path, "fault": fault, "times": times})

    async def report(self) -> dict[str, Any]:
        """What the server has seen and does now."""
        async with httpx.AsyncClient() as http:
            report: dict[str, Any] = (await http.get(f"{self.server.url}/test/seen")).json()
            return report

    async def seen(self, path: str = "") -> list[dict[str, Any]]:
        calls = (await self.report())["calls"]
        return [call for call in calls if call["path"].startswith(path) and not call["path"].startswith("/test")]

    async def samples(self, num_requests: int) -> None:
        """Waits until the server has sampled tokens of so many requests that are not finished."""

        async def are_sampled() -> bool:
            running = (await self.report())["running"]
            return sum(num_tokens > 0 for num_tokens in running.values()) >= num_requests

        await wait_until_async(are_sampled)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def complete(self, *args: Any, **kwargs: Any) -> Completion:
        return await self.engine.complete(request(*args, **kwargs))


RigFactory = Callable[..., Awaitable[Rig]]
BundleFactory = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path) -> BundleFactory:
    """Directories that look like bundles of one small model."""

    def make(name: str = "first", value: float = 1.0, columns: int = 3, vocab_size: int = 20) -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(f'{{"vocab_size": {vocab_size}, "eos_token_id": 1}}')
        save_file({"w": torch.full((2, columns), value), "b": torch.ones(3)}, directory / "model.safetensors")
        return directory

    return make


def config_of(*arguments: str, **settings: Any) -> SglangConfig:
    """Of an engine that launches the contract-speaking server."""
    defaults = {"start_seconds": 20.0, "request_seconds": 20.0, "load_seconds": 5.0, "health_seconds": 0.2}
    command = (sys.executable, str(SERVER))
    return SglangConfig(**{**defaults, "command": command, "arguments": arguments, **settings})


@pytest.fixture
async def rig(bundle: BundleFactory) -> AsyncIterator[RigFactory]:
    """Starts engines, by default with the first bundle loaded as 1.1, and closes them."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, loaded: bool = True, server: Any = None, **settings: Any) -> Rig:
            config = config_of(*arguments, **settings)
            registry = CollectorRegistry()
            chosen = server or ManagedServer(config)
            engine = SglangEngine(config, chosen, SglangMetrics(registry))
            registry.register(engine.series)
            stack.push_async_callback(engine.close)
            if loaded:
                await engine.load(bundle(), WeightVersion(1, 1))
            return Rig(engine, chosen, registry)

        yield start
