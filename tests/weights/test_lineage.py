"""A replica gets the least that leads it to the newest version, and has its bits then."""

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import Conflict, IbtpoError, InvalidInput, TooLarge
from shared.protocol.weights import Base, Encoding
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore, send_full
from tests.weights.bundles import Weights, bytes_of, contents, in_chunks

PLENTY = 10**9


class Publishing:
    """A learner that publishes version after version."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.weights = Weights()
        self.lineage = Lineage(root / "deltas")
        self.snapshots: list[Snapshot] = []

    def publish(self, share: float = 0.01) -> Snapshot:
        self.weights.move(share)
        number = len(self.snapshots) + 1
        snapshot = self.weights.write(self._root / f"1.{number}", WeightVersion(1, number))
        if self.snapshots:
            self.lineage.add(self.snapshots[-1], snapshot)
        self.snapshots.append(snapshot)
        return snapshot

    async def route(self, have: Base | None) -> tuple[Outgoing, bytes]:
        async with self.lineage.route(self.snapshots[-1], have) as outgoing:
            data = bytes_of(outgoing)
            assert len(data) == outgoing.num_bytes
            return outgoing, data


@pytest.fixture
def learner(tmp_path: Path) -> Publishing:
    return Publishing(tmp_path / "learner")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "store", keep=1, run="r")


async def follow(learner: Publishing, store: SnapshotStore) -> Encoding:
    """Brings the store to the newest version; how it came."""
    have = store.latest()
    outgoing, data = await learner.route(have.manifest.base if have else None)
    snapshot = await store.receive(in_chunks(data), PLENTY)
    assert snapshot.manifest == learner.snapshots[-1].manifest
    assert contents(snapshot.directory) == contents(learner.snapshots[-1].directory)
    return outgoing.transfer.encoding


async def test_a_replica_that_follows_is_sent_what_differs(learner: Publishing, store: SnapshotStore) -> None:
    ways = []
    for _ in range(4):
        learner.publish()
        ways.append(await follow(learner, store))
    assert ways == [Encoding.FULL, *[Encoding.DELTA] * 3]
    outgoing, _ = await learner.route(learner.snapshots[-2].manifest.base)
    assert outgoing.transfer.num_bytes < 0.1 * learner.snapshots[-1].manifest.num_bytes


async def test_a_replica_that_was_away_is_sent_the_chain(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    for _ in range(5):
        learner.publish()
    outgoing, _ = await learner.route(learner.snapshots[0].manifest.base)
    assert len(outgoing.files) == 5
    assert await follow(learner, store) is Encoding.DELTA


async def test_a_chain_that_is_no_shorter_than_all_is_forgotten(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    for _ in range(60):
        learner.publish(0.1)
    assert await follow(learner, store) is Encoding.FULL
    kept = list((learner._root / "deltas").iterdir())
    assert sum(path.stat().st_size for path in kept) < learner.snapshots[-1].manifest.num_bytes


async def test_weights_that_changed_everywhere_are_sent_whole(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    learner.publish(1.0)
    assert await follow(learner, store) is Encoding.FULL


async def test_a_file_that_changed_its_length_travels_with_the_delta(learner: Publishing, store: SnapshotStore) -> None:
    for config in ('{"model_type": "tiny"}', '{"model_type": "tiny", "eos_token_id": 7}', "", "{}"):
        learner.weights.config = config
        learner.publish()
        await follow(learner, store)


async def test_a_replica_on_another_base_is_told_what_it_lacks(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    learner.publish()
    _, data = await learner.route(learner.snapshots[0].manifest.base)
    with pytest.raises(Conflict, match=r"changes 1\.1:[0-9a-f]{12}, which is not here \(here: nothing\)"):
        await store.receive(in_chunks(data), PLENTY)
    foreign = learner.snapshots[0].manifest.base.model_copy(update={"content_hash": "0" * 64})
    assert (await learner.route(foreign))[0].transfer.encoding is Encoding.FULL


async def test_a_delta_in_use_outlives_the_chain(learner: Publishing) -> None:
    learner.publish()
    learner.publish()
    async with learner.lineage.route(learner.snapshots[-1], learner.snapshots[0].manifest.base) as outgoing:
        sent = bytes_of(outgoing)
        learner.publish(1.0)
        assert bytes_of(outgoing) == sent
    assert not any(path.exists() for path, _ in outgoing.files)


async def test_a_broken_connection_goes_on_where_it_broke(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    learner.publish()
    _, data = await learner.route(learner.snapshots[0].manifest.base)
    async with store.incoming(PLENTY) as incoming:
        while incoming.num_bytes < len(data):
            incoming.feed(memoryview(data)[incoming.num_bytes :][:777])
        assert (await store.complete(incoming)).manifest == learner.snapshots[-1].manifest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.sampled_from(["flip", "cut", "double", "swap"]), at=st.integers(0), length=st.integers(1, 2000))
async def test_a_damaged_delta_changes_nothing(tmp_path: Path, damage: str, at: int, length: int) -> None:
    root = tmp_path / f"{damage}-{at}-{length}"
    learner, store = Publishing(root / "learner"), SnapshotStore(root / "store", keep=1)
    learner.publish()
    await follow(learner, store)
    before = contents(root / "store" / "1.1")
    learner.publish()
    _, data = await learner.route(learner.snapshots[0].manifest.base)
    at %= len(data)
    piece = data[at : at + length]
    damaged = {
        "flip": data[:at] + bytes([data[at] ^ 1 << length % 8]) + data[at + 1 :],
        "cut": data[:at],
        "double": data[: at + length] + piece + data[at + length :],
        "swap": data[:at] + data[at + length : at + 2 * length] + piece + data[at + 2 * length :],
    }[damage]
    try:
        snapshot = await store.receive(in_chunks(damaged), PLENTY)
    except IbtpoError:
        latest = store.latest()
        assert latest is not None
        assert contents(latest.directory) == before
        assert [path.name for path in (root / "store").iterdir()] == ["1.1"]
    else:
        assert contents(snapshot.directory) == contents(learner.snapshots[-1].directory)


async def test_a_delta_needs_the_room_of_its_result(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    learner.publish()
    _, data = await learner.route(learner.snapshots[0].manifest.base)
    with pytest.raises(TooLarge, match="over the 10000 that are taken here"):
        await store.receive(in_chunks(data), 10_000)


async def test_a_delta_that_leaves_out_a_tensor_is_refused(learner: Publishing, store: SnapshotStore) -> None:
    learner.publish()
    await follow(learner, store)
    newest = learner.publish()
    outgoing, _ = await learner.route(learner.snapshots[0].manifest.base)
    lying = Outgoing(outgoing.transfer.model_copy(update={"num_bytes": 0}), outgoing.head, ())
    with pytest.raises(InvalidInput, match=r"tensor '.*' of model.safetensors arrived with xxh3"):
        await store.receive(in_chunks(bytes_of(lying)), PLENTY)
    assert send_full(newest).num_bytes == len(bytes_of(send_full(newest)))


async def test_a_delta_that_does_not_fit_on_the_disk_leaves_nothing_of_itself(
    learner: Publishing, store: SnapshotStore
) -> None:
    learner.publish()
    await follow(learner, store)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    base, newest = learner.snapshots[0], learner.weights.write(learner._root / "1.2", WeightVersion(1, 2))
    learner.weights.move(1.0)
    moved = learner.weights.write(learner._root / "1.3", WeightVersion(1, 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            learner.lineage.add(newest, moved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((learner._root / "deltas").iterdir()) == []
    learner.lineage.add(base, moved)
    learner.snapshots.append(moved)
    assert await follow(learner, store) is Encoding.FULL


async def test_deltas_that_are_gone_are_not_offered_and_another_process_leaves_them(
    learner: Publishing, store: SnapshotStore
) -> None:
    learner.publish()
    await follow(learner, store)
    learner.publish()
    Lineage(learner._root / "deltas")  # of a learner that was started twice, and waits for the run's lease
    assert await follow(learner, store) is Encoding.DELTA
    learner.publish()
    (learner._root / "deltas" / "1.3.delta").unlink()
    assert await follow(learner, store) is Encoding.FULL


async def test_a_tensor_that_changed_its_type_is_sent_whole(learner: Publishing, store: SnapshotStore) -> None:
    del learner.weights.tensors["none"]  # the others stay in their order
    learner.publish()
    await follow(learner, store)
    learner.weights.tensors["moe"] += 1
    learner.publish()
    learner.weights.tensors["moe"] = learner.weights.tensors["moe"].view(np.uint32)  # as many bytes, at the same place
    learner.publish()
    assert await follow(learner, store) is Encoding.FULL  # the first delta counts in values of 8 bytes
