"""A rollout replica over real HTTP, with the embedded engine and the demo's policy."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.demo.task import checkpoint_directory
from services.rollout.config import RolloutConfig
from services.rollout.wiring import build
from shared.protocol.weights import Manifest
from shared.runtime.serve import open_listener, serve_in_background
from shared.tree.draw import WeightVersion
from shared.weights import write_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The demo's policy bundle, a copy that a test may spoil."""
    directory = tmp_path / "bundle"
    shutil.copytree(checkpoint_directory(), directory)
    (directory / "README.md").unlink(missing_ok=True)
    return directory


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    """Version 1.1 of run `r`."""
    return write_manifest("r", bundle, WeightVersion(1, 1))


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a replica that has no weights yet, no Redis, and a verifier that is down."""
    config = RolloutConfig(
        run="r", snapshots=tmp_path / "snapshots", verifier_url="http://127.0.0.1:9", verdict_seconds=0.3
    )
    async with (
        serve_in_background(build(config), open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client
