"""Fixtures of the learner's tests: a tiny policy, its problems, configurations."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from services.learner.config import LearnerConfig
from shared.streams import RunStreams, connect
from tests.learner.fake_replica import FakeReplica, Replica
from tests.learner.policies import write_policy

Configure = Callable[..., LearnerConfig]
"""Makes a small configuration, with changes."""

torch.set_num_threads(1)  # several tests share few cores


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy, to be read only."""
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def problems_file(tmp_path: Path) -> Path:
    """Forty problems."""
    path = tmp_path / "problems.jsonl"
    rows = [
        {"id": f"p{number}", "prompt": f"w{number % 9} w3", "kind": "exact", "answer_key": {"gold": str(number)}}
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
async def streams(redis_url: str) -> AsyncIterator[RunStreams]:
    """Those of the run `run`."""
    opened = RunStreams(connect(redis_url, timeout_seconds=1.0), "run")
    yield opened
    await opened.close()


@pytest.fixture
def replica(streams: RunStreams, tmp_path: Path) -> Replica:
    """Starts fake replicas of the run."""
    return lambda name: FakeReplica(streams, name, tmp_path / name).live()


@pytest.fixture
def configure(policy_dir: Path, problems_file: Path, tmp_path: Path) -> Configure:
    """Makes a small configuration, with changes."""

    def make(**changes: Any) -> LearnerConfig:
        values: dict[str, Any] = {
            "run": "run",
            "run_dir": tmp_path / "run",
            "model": policy_dir,
            "data": problems_file,
            "growth": {"sampler": {"kind": "independent", "initial_draws": 8}, "max_tokens": 16},
            "batch_size": 4,
            "total_steps": 4,
            "port": 0,
            "tracker": "none",
        }
        return LearnerConfig.model_validate(values | changes)

    return make
