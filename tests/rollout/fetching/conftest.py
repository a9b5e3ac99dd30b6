"""One learner and one replica."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rollout.fetching.parts import FetchingReplica, PublishingLearner


@pytest.fixture
def learner(tmp_path: Path) -> PublishingLearner:
    return PublishingLearner(tmp_path / "learner")


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[FetchingReplica]:
    replica = FetchingReplica(tmp_path / "replica")
    async with replica.http:
        yield replica
