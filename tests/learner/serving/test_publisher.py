"""Publishing beside training: versions are written, offered and waited for, each replica at its own pace."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import cast

import pytest
import torch

from services.learner.app import build_router
from services.learner.metrics import LearnerMetrics, PushResult
from services.learner.serving.delivery import WeightDelivery
from services.learner.serving.publisher import Publisher, Weights
from services.learner.waits import Wait
from shared.errors import Conflict, IbtpoError, InvalidInput, Unavailable
from shared.protocol.status import RunState, RunStatus
from shared.protocol.waiting import WaitKind
from shared.protocol.weights import Base, Encoding
from shared.runtime.client import http_client
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion
from shared.weights import Lineage, Outgoing, Snapshot, SnapshotStore
from tests.learner.fake_replica import FakeReplica, Replica
from tests.serving import serve_router
from tests.waiting import wait_until_async


def version(number: int, generation: int = 1, origin: str = "") -> WeightVersion:
    return WeightVersion(generation, number, origin)


class Published:
    """A publisher whose policy is one and the same bundle, and what came of it."""

    def __init__(self, streams: RunStreams, bundle: Path, directory: Path, metrics: LearnerMetrics) -> None:
        self.streams, self.metrics, self.directory = streams, metrics, directory
        self.may_write = threading.Event()
        self.may_write.set()
        self.disk_error: OSError | None = None
        self.writing: list[int] = []
        self.told: list[WeightVersion] = []
        self.http = http_client(None, 5.0)
        self.bundle = bundle
        self.publisher = self.make()

    def make(self, publish_seconds: float = 5.0) -> Publisher:
        store = SnapshotStore(self.directory, 1, run="run")
        self.delivery = WeightDelivery(self.streams, self.http, self.metrics, publish_seconds)
        lineage = Lineage(self.directory / ".deltas")
        draft = self.directory / ".draft"
        return Publisher("run", store, lineage, self.delivery, self.metrics, draft, self.write, self.told.append)

    def route(self, have: Base | None) -> AbstractAsyncContextManager[Outgoing]:
        return self.publisher.route(have)

    def write(self, weights: Weights, directory: Path) -> None:
        self.writing.append(int(weights["number"]))
        assert self.may_write.wait(20)
        if self.disk_error is not None:
            raise self.disk_error
        shutil.copytree(self.bundle, directory)
        (directory / "number.json").write_text(str(int(weights["number"])))

    def begin(self, number: int) -> "asyncio.Task[Snapshot]":
        return self.publisher.begin({"number": torch.tensor(number)}, version(number), 0.0)

    async def delivered(self) -> None:
        await self.publisher.delivered(Wait(WaitKind.PUBLISH))

    async def keep_up(self, number: int) -> None:
        await self.publisher.keep_up(version(number), Wait(WaitKind.PUBLISH))

    async def serves(self, replica: FakeReplica, wanted: WeightVersion) -> None:
        """Waits until the registry says so."""

        async def is_said() -> bool:
            with suppress(Unavailable):
                return (replica.name, wanted) in [(one.name, one.version) for one in await self.streams.replicas.live()]
            return False

        await wait_until_async(is_said)

    async def are_live(self, count: int) -> None:
        async def enough() -> bool:
            return len(await self.streams.replicas.live()) == count

        await wait_until_async(enough)

    @property
    def pushes(self) -> dict[str, float]:
        """How many ended how, of those that there were."""
        name = "ibtpo_learner_weight_pushes_total"
        values = {one.value: self.metrics.registry.get_sample_value(name, {"result": one}) for one in PushResult}
        return {result: value for result, value in values.items() if value}


@pytest.fixture
async def published(streams: RunStreams, policy_dir: Path, tmp_path: Path) -> AsyncIterator[Published]:
    made = Published(streams, policy_dir, tmp_path / "published", LearnerMetrics())
    router = build_router(cast(Publisher, made), lambda: RunStatus(run="run", state=RunState.TRAINING), lambda: None)
    async with made.http, serve_router(router, max_body_bytes=1 << 20) as url:
        await streams.status_keys.announce_learner(url)
        yield made
        made.may_write.set()
        await made.publisher.close()


async def test_a_version_reaches_every_live_replica(published: Published, replica: Replica) -> None:
    async with replica("one") as one, replica("two") as two:
        await published.are_live(2)
        assert published.publisher.latest is None
        snapshot = await published.begin(3)
        await published.delivered()
        assert one.loaded == two.loaded == published.told == [version(3)]
        assert published.publisher.latest == snapshot
    assert published.pushes == {"loaded": 2}
    seconds = published.metrics.registry.get_sample_value("ibtpo_learner_weight_delivery_seconds_count")
    assert seconds == 1, "once, when the last replica serves it"


@pytest.mark.parametrize(
    ("error", "result"),
    [(Unavailable("full"), "unreachable"), (Conflict("newer"), "superseded"), (InvalidInput("no"), "refused")],
)
async def test_an_offer_that_fails_is_counted_by_its_reason_and_made_again_with_the_next_version(
    published: Published, replica: Replica, error: IbtpoError, result: str
) -> None:
    async with replica("one") as one:
        one.push_error = error
        await published.are_live(1)
        published.begin(0)
        await published.delivered()
        assert published.pushes == {result: 1}
        one.push_error = None
        published.begin(1)
        await published.delivered()
        assert one.loaded[-1] == version(1)


async def test_training_goes_on_while_a_copy_is_written_and_the_third_copy_waits_for_the_first(
    published: Published,
) -> None:
    published.may_write.clear()
    for number in range(2):
        await published.publisher.make_room()
        published.begin(number)
    assert published.publisher.begun == version(1)
    assert published.publisher.latest is None
    room = asyncio.create_task(published.publisher.make_room())
    await wait_until_async(lambda: published.writing == [0])
    assert not room.done()
    published.may_write.set()
    await room
    await published.delivered()
    assert published.told == [version(0), version(1)]
    assert published.publisher.latest is not None
    assert published.publisher.latest.version == version(1)


async def test_a_slow_replica_delays_no_other_and_goes_on_with_the_newest(
    published: Published, replica: Replica
) -> None:
    async with replica("quick") as quick, replica("slow") as slow:
        await published.are_live(2)
        slow.may_load.clear()
        for number in range(4):
            published.begin(number)
            await wait_until_async(lambda number=number: quick.loaded[-1:] == [version(number)])
        assert slow.loaded == []
        slow.may_load.set()
        await published.delivered()
        assert slow.loaded == [version(3)], "what was overtaken meanwhile is not sent"
        assert quick.loaded == [version(number) for number in range(4)]
    assert sorted(path.name for path in published.directory.iterdir() if path.name[0] != ".") == ["1.3"]


async def test_training_waits_for_who_would_be_left_behind_and_for_no_other(
    published: Published, replica: Replica
) -> None:
    async with replica("quick") as quick, replica("slow") as slow, replica("new") as new:
        await published.are_live(3)
        new.push_error = Unavailable("not yet")
        published.begin(0)
        await published.delivered()
        slow.may_load.clear()
        new.may_load.clear()
        new.push_error = None
        published.begin(1)
        await wait_until_async(lambda: quick.loaded[-1] == version(1))
        await published.keep_up(0)
        waiting = asyncio.create_task(published.keep_up(1))
        await wait_until_async(lambda: slow.asked == new.asked == 2)
        assert not waiting.done()
        assert published.publisher.lag == 1
        slow.may_load.set()
        await waiting
        assert published.publisher.lag == 0
        assert new.loaded == [], "it serves nothing that could be too old"
        new.may_load.set()


async def test_a_version_that_is_still_written_is_waited_for_where_somebody_needs_it(
    published: Published, replica: Replica
) -> None:
    async with replica("one") as one:
        await published.are_live(1)
        published.begin(0)
        await published.delivered()
        published.may_write.clear()
        published.begin(1)
        assert published.publisher.lag == 1, "from the copy on"
        await published.keep_up(0)
        waiting = asyncio.create_task(published.keep_up(1))
        await wait_until_async(lambda: published.writing == [0, 1])
        assert not waiting.done()
        published.may_write.set()
        await waiting
        assert one.loaded == [version(0), version(1)]


async def test_who_missed_its_deadline_is_not_waited_for_until_it_has_caught_up(
    published: Published, replica: Replica
) -> None:
    async with replica("slow") as slow:
        await published.are_live(1)
        published.begin(0)
        await published.serves(slow, version(0))
        await published.publisher.close()
        published.publisher = published.make(publish_seconds=0.2)
        slow.may_load.clear()
        published.begin(1)
        await published.keep_up(1)
        assert published.pushes["unreachable"] == 1
        assert published.publisher.lag == 0, "nor does it hold back tasks"
        published.begin(2)
        await published.keep_up(2)
        assert published.pushes["unreachable"] == 1, "nobody waited for the next offer to fail"
        slow.may_load.set()
        published.begin(3)
        await published.serves(slow, version(3))
        await published.keep_up(3)
        slow.may_load.clear()
        missed = published.pushes["unreachable"]
        published.begin(4)
        await published.keep_up(4)
        assert published.pushes["unreachable"] == missed + 1, "it is waited for again"
        slow.may_load.set()


def test_a_deadline_goes_by_the_bytes_that_are_to_be_taken(published: Published) -> None:
    assert published.delivery.deadline_seconds(0) == 5.0
    assert published.delivery.deadline_seconds(3_400_000_000) == pytest.approx(5.0 + 162.1, abs=0.1)


async def test_a_disk_that_is_full_ends_the_writing_with_its_error_and_the_version_before_stays(
    published: Published,
) -> None:
    await published.begin(0)
    published.disk_error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        await published.begin(1)
    assert published.told == [version(0)]
    async with published.publisher.route(None) as outgoing:
        assert outgoing.transfer.manifest.version == version(0)


async def test_what_is_abandoned_is_never_published(published: Published) -> None:
    published.may_write.clear()
    writing = published.begin(0)
    waiting = published.begin(1)
    await wait_until_async(lambda: published.writing == [0])
    published.publisher.abandon()
    published.may_write.set()
    await asyncio.wait({writing, waiting})
    assert writing.cancelled()
    assert waiting.cancelled()
    assert published.told == []
    with pytest.raises(Unavailable, match="no version is published yet"):
        async with published.publisher.route(None):
            pass


async def test_a_delta_leads_from_version_to_version_and_from_what_an_earlier_process_left(
    published: Published, tmp_path: Path
) -> None:
    first = await published.begin(0)
    second = await published.begin(1)
    async with published.publisher.route(first.manifest.base) as outgoing:
        assert outgoing.transfer.base == first.manifest.base
        assert outgoing.num_bytes < second.manifest.num_bytes
    await published.publisher.close()
    published.publisher = published.make()
    assert published.publisher.latest is None, "what was found is not this process's to publish"
    await published.publisher.begin({"number": torch.tensor(2)}, version(1, generation=2, origin="a"), 0.0)
    async with published.publisher.route(second.manifest.base) as outgoing:
        assert outgoing.transfer.base == second.manifest.base


async def test_a_snapshot_stays_on_disk_until_its_last_byte_is_sent(published: Published) -> None:
    snapshot = await published.begin(0)
    async with published.publisher.route(None) as outgoing:
        for number in range(1, 4):
            await published.begin(number)
        assert sum(len(path.read_bytes()) for path, _ in outgoing.files) == snapshot.manifest.num_bytes
    assert not snapshot.directory.exists()


async def test_a_slow_reader_keeps_what_it_is_sent_and_no_more(published: Published) -> None:
    one, two = await published.begin(1), await published.begin(2)
    async with published.route(one.manifest.base) as delta, published.route(None) as full:
        assert (delta.transfer.encoding, full.transfer.encoding) == (Encoding.DELTA, Encoding.FULL)
        three = await published.begin(3)
        assert all(path.exists() for path, _ in (*delta.files, *full.files))
        async with published.route(two.manifest.base):
            await published.begin(4)
            assert not three.directory.exists()
    assert not two.directory.exists()
