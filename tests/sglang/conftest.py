"""The real SGLang: one server for all tests, which engines use as an external one."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file, save_file

from services.demo.task import checkpoint_directory
from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, Request, Sampling
from services.rollout.engines.sglang import ExternalServer, SglangEngine, SglangMetrics
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.launch import build_command, build_environment, die_with_parent
from services.rollout.vocabulary import Vocabulary
from shared.runtime.child_process import find_free_port
from shared.tree.draw import WeightVersion
from tests.waiting import wait_until

PYTHON = Path(os.environ.get("IBTPO_SGLANG_PYTHON", ".venv-sglang/bin/python"))
"""The interpreter that has SGLang; with a GPU, one with its own requirements (docs/sglang.md)."""
MODULE = os.environ.get("IBTPO_SGLANG_MODULE", "sglang_cpu")
ARGUMENTS = tuple(os.environ.get("IBTPO_SGLANG_ARGUMENTS", "").split())
START_SECONDS = 400.0
NUMBERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of it needs the real server."""
    for item in items:
        if "tests/sglang/" in str(item.path):
            item.add_marker(pytest.mark.sglang)
            item.add_marker(pytest.mark.timeout(2 * START_SECONDS))


@dataclass(frozen=True, slots=True)
class Bundles:
    """The demo's policy, and another one of the same shape."""

    first: Path
    second: Path


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """In a directory that the server reads too."""
    root = tmp_path_factory.mktemp("bundles")
    found = Bundles(root / "first", root / "second")
    for directory, noise in ((found.first, 0.0), (found.second, 0.05)):
        directory.mkdir()
        for path in checkpoint_directory().iterdir():
            if path.suffix == ".json":
                (directory / path.name).write_bytes(path.read_bytes())
        torch.manual_seed(0)
        weights = load_file(checkpoint_directory() / "model.safetensors")
        moved = {name: weight + noise * torch.randn_like(weight) * weight.std() for name, weight in weights.items()}
        save_file(moved, directory / "model.safetensors", metadata={"format": "pt"})
    return found


@pytest.fixture(scope="session")
def vocabulary(bundles: Bundles) -> Vocabulary:
    """The demo's."""
    return Vocabulary.load(bundles.first)


@pytest.fixture(scope="session")
def server_url(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the one server listens."""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing: `make sglang-cpu` installs the real SGLang (about two minutes)")
    config = SglangConfig(command=(str(PYTHON), "-m", MODULE), arguments=ARGUMENTS)
    port, log = find_free_port(), tmp_path_factory.mktemp("server") / "sglang.log"
    command = build_command(config, Bundle.read(bundles.first, WeightVersion(0, 0)), port)
    with log.open("wb") as output:
        server = subprocess.Popen(
            die_with_parent(command, os.getpid()), stdout=output, stderr=output, env=build_environment(os.environ)
        )
    try:
        with httpx.Client(timeout=2) as http:
            wait_until(
                lambda: server.poll() is not None or _listens(http, f"http://127.0.0.1:{port}"),
                START_SECONDS - 60,
                lambda: f"SGLang does not listen:\n{log.read_text()[-4000:]}",
            )
        assert server.poll() is None, f"SGLang did not start:\n{log.read_text()[-4000:]}"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _listens(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/health").is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Served:
    """An engine over the real server, which serves the first bundle as `version`."""

    engine: SglangEngine
    registry: CollectorRegistry
    url: str

    def next_version(self) -> WeightVersion:
        """One that this server has not served yet: it begins with an empty cache."""
        return WeightVersion(1, next(NUMBERS))

    async def sample(self, token_ids: tuple[int, ...], max_tokens: int = 40, **sampling: Any) -> Completion:
        return await self.engine.complete(Request(token_ids, max_tokens, Sampling(**sampling), frozenset({1}), 0))

    async def series(self, name: str, **labels: str) -> float:
        """One of the server's own series, as it is now."""
        await self.engine.scrape()
        found = [
            sample.value
            for family in self.engine.series.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found)

    async def has_series(self, name: str, at_least: float) -> bool:
        """Whether one of the server's own series has reached a value."""
        return await self.series(name) >= at_least


@pytest.fixture
async def served(server_url: str, bundles: Bundles) -> AsyncIterator[Served]:
    """An engine that has just loaded the first bundle, with an empty cache."""
    config = SglangConfig(url=server_url, reads_snapshots=True, request_seconds=120.0)
    registry = CollectorRegistry()
    engine = SglangEngine(config, ExternalServer(config), SglangMetrics(registry))
    registry.register(engine.series)
    one = Served(engine, registry, server_url)
    await engine.load(bundles.first, one.next_version())
    yield one
    await engine.close()
