"""Published versions: pushed to every replica, and on disk as long as somebody reads them."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.learner.metrics import LearnerMetrics, PushResult
from services.learner.serving.publisher import Publisher
from shared.errors import Conflict, IbtpoError, InvalidInput, Unavailable
from shared.runtime.client import http_client
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion
from shared.weights import SnapshotStore
from tests.learner.fake_replica import Replica
from tests.waiting import wait_until_async
from tests.weights.bundles import bytes_of, in_chunks


class OnePolicy:
    """Ranks whose policy never changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save_for_serving(self, directory: Path) -> None:
        shutil.copytree(self._directory, directory)


@pytest.fixture
def metrics() -> LearnerMetrics:
    return LearnerMetrics()


@pytest.fixture
async def publisher(streams: RunStreams, metrics: LearnerMetrics, tmp_path: Path) -> AsyncIterator[Publisher]:
    store = SnapshotStore(tmp_path / "published", 1, run="run")
    async with http_client(None, 5.0) as http:
        yield Publisher(streams, http, store, tmp_path / "draft", metrics, push_seconds=5.0)


def pushes(metrics: LearnerMetrics) -> dict[str, float]:
    """How many ended how, of those that there were."""
    values = {
        result.value: metrics.registry.get_sample_value("ibtpo_learner_weight_pushes_total", {"result": result})
        for result in PushResult
    }
    return {result: value for result, value in values.items() if value}


async def test_a_version_is_pushed_to_every_live_replica(
    publisher: Publisher, metrics: LearnerMetrics, policy_dir: Path, replica: Replica, streams: RunStreams
) -> None:
    async with replica("one") as one, replica("two") as two:

        async def are_live() -> bool:
            return len(await streams.replicas.live()) == 2

        await wait_until_async(are_live)
        assert publisher.latest is None
        snapshot = publisher.write(OnePolicy(policy_dir), WeightVersion(1, 3))
        await publisher.push(snapshot)
        assert one.loaded == two.loaded == [WeightVersion(1, 3)]
        assert publisher.latest == snapshot
    assert pushes(metrics) == {"loaded": 2}


@pytest.mark.parametrize(
    ("error", "result"),
    [(Unavailable("full"), "unreachable"), (Conflict("newer"), "superseded"), (InvalidInput("no"), "refused")],
)
async def test_a_push_that_fails_is_counted_by_its_reason(
    error: IbtpoError,
    result: str,
    publisher: Publisher,
    metrics: LearnerMetrics,
    policy_dir: Path,
    replica: Replica,
    streams: RunStreams,
) -> None:
    async with replica("one") as one:
        one.push_error = error
        await wait_until_async(streams.replicas.live)
        await publisher.push(publisher.write(OnePolicy(policy_dir), WeightVersion(1, 0)))
    assert pushes(metrics) == {result: 1}


async def test_a_snapshot_stays_on_disk_until_its_last_byte_is_sent(
    publisher: Publisher, policy_dir: Path, tmp_path: Path
) -> None:
    ranks, store = OnePolicy(policy_dir), SnapshotStore(tmp_path / "joiner", 1)
    publisher.write(ranks, WeightVersion(1, 0))
    async with publisher.route(None) as outgoing:
        for number in range(1, 4):
            publisher.write(ranks, WeightVersion(1, number))
        received = await store.receive(in_chunks(bytes_of(outgoing)), 1 << 26)
    assert received.version == WeightVersion(1, 0)
