"""The heartbeat: the status that others see, a stop that they ask for, a lease that another takes."""

from collections.abc import Callable

import pytest

from services.learner.config import LearnerConfig
from services.learner.ledger import Ledger, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.record.progress import Progress
from services.learner.record.state import SavedProgress
from services.learner.serving.acts import PublishedActs
from services.learner.serving.heartbeat import LearnerHeartbeat
from shared.errors import Conflict
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import RunState, RunStatus
from shared.streams import RunStreams, connect
from tests.learner.conftest import Configure
from tests.learner.synthetic import task
from tests.waiting import wait_until_async


class Learner:
    """A learner that does nothing but beat."""

    def __init__(self, config: LearnerConfig, streams: RunStreams) -> None:
        self.progress = Progress(config, SavedProgress())
        self.ledger = Ledger()
        self.stops = 0
        self.silent_seconds = 0.0
        self.complaint = ""
        self.losses: list[Conflict] = []
        self._streams = streams
        self.heartbeat = LearnerHeartbeat(
            streams,
            self.progress,
            self.ledger,
            lambda: "http://learner:1",
            self._count_stop,
            self.losses.append,
            lambda: self.silent_seconds,
            PublishedActs(LearnerMetrics()),
            trackers=lambda: self.complaint,
        )

    async def start(self) -> None:
        await self._streams.lease.acquire("this learner", 1)
        self.heartbeat.start()

    def _count_stop(self) -> None:
        self.stops += 1


@pytest.fixture
def learner(configure: Configure, streams: RunStreams, monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr("services.learner.serving.heartbeat._STATUS_SECONDS", 0.02)
    monkeypatch.setattr("services.learner.serving.heartbeat._RENEW_SECONDS", 0.02)
    return Learner(configure(total_steps=7), streams)


async def published(streams: RunStreams, is_so: Callable[[RunStatus], bool]) -> RunStatus:
    async def find() -> RunStatus | None:
        status = await streams.status_keys.read()
        return status if status is not None and is_so(status) else None

    status: RunStatus = await wait_until_async(find)
    return status


async def test_the_published_status_has_progress_accounts_replicas_and_queues(
    learner: Learner, streams: RunStreams
) -> None:
    learner.ledger.feed(TaskId(0, 0), TaskId(0, 1))
    learner.progress.state = RunState.TRAINING
    await streams.tasks.put([task(0)])
    replica = ReplicaInfo(name="one", url="http://one", state=ReplicaState.SERVING, version=None)
    await streams.replicas.announce(replica, 60.0)
    await learner.start()
    status = await published(streams, lambda status: bool(status.replicas))
    assert (status.run, status.state, status.total_steps) == ("run", RunState.TRAINING, 7)
    assert (status.accounts.fed, status.accounts.outstanding) == (1, 1)
    assert (status.queued_tasks, status.pending_tasks, status.queued_trees) == (1, 0, 0)
    assert [one.name for one in status.replicas] == ["one"]
    assert await streams.status_keys.learner_url() == "http://learner:1"
    learner.progress.state = RunState.STOPPED
    await learner.heartbeat.stop()
    assert (await published(streams, lambda status: status.state is RunState.STOPPED)).time >= status.time
    assert await streams.lease.acquire("the next learner", 1) == 2


async def test_a_stop_that_is_requested_reaches_the_run(learner: Learner, streams: RunStreams) -> None:
    await learner.start()
    await streams.status_keys.request_stop()
    await wait_until_async(lambda: learner.stops)
    await learner.heartbeat.stop()


async def test_a_learner_whose_run_was_taken_publishes_nothing_more(
    learner: Learner, streams: RunStreams, redis_url: str
) -> None:
    await learner.start()
    await published(streams, lambda status: status.state is RunState.STARTING)
    another = RunStreams(connect(redis_url), "run")
    await another.lease.acquire("this learner", 1)  # the same owner, restarted, supersedes itself
    await another.close()
    await wait_until_async(lambda: learner.losses)
    learner.progress.state = RunState.FAILED
    await learner.heartbeat.stop()
    assert (await streams.status_keys.read()).state is RunState.STARTING


async def test_a_learner_of_which_nothing_comes_back_says_so_and_where_its_tasks_are(
    learner: Learner, streams: RunStreams
) -> None:
    learner.ledger.feed(TaskId(0, 0), TaskId(0, 1))
    await learner.start()
    learner.silent_seconds = 31.0
    status = await published(streams, lambda status: bool(status.message))
    assert "no tree has come for 31 s; 1 tasks are out, none is on the streams" in status.message
    await streams.tasks.put([task("0-0")])
    await published(streams, lambda status: "1 wait for a replica, 0 are being grown" in status.message)
    learner.silent_seconds = 0.0
    await published(streams, lambda status: not status.message)
    await learner.heartbeat.stop()


async def test_a_tracker_that_gets_nothing_is_in_the_status_unless_training_has_a_worse_trouble(
    learner: Learner,
) -> None:
    assert learner.heartbeat.status().message == ""
    learner.complaint = "tracker wandb gets nothing: no route"
    assert learner.heartbeat.status().message == learner.complaint
    learner.progress.warning = "steps change nothing"
    assert learner.heartbeat.status().message == "steps change nothing"
