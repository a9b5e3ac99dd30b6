"""The learner as a real process on a real Redis, killed and stopped in the middle of its run."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from services.learner.config import LearnerConfig
from services.learner.record.checkpoint import CheckpointStore
from shared.errors import Unavailable
from shared.protocol.figures import RunSummary
from shared.protocol.status import RunState, RunStatus
from shared.runtime.child_process import kill_group
from shared.streams import RunStreams
from shared.weights import read_manifest
from shared.weights.manifest import check_contents
from tests.accounts import is_balanced
from tests.learner.conftest import Configure
from tests.learner.fake_replica import FakeReplica
from tests.learner.torchrun import ENVIRONMENT, rank_command
from tests.redis_process import RedisProcess
from tests.waiting import wait_until_async

pytestmark = pytest.mark.drill

_SCRIPT = Path(__file__).with_name("learner_process.py")


class LearnerProcess:
    """Processes of one run's learner, one after the other; their logs go to one file. They find `packages`, too."""

    def __init__(self, config: LearnerConfig, directory: Path, packages: Path | None = None) -> None:
        path = os.pathsep.join(filter(None, (ENVIRONMENT["PYTHONPATH"], str(packages or ""))))
        self._environment = {**ENVIRONMENT, "PYTHONPATH": path}
        self._config = directory / "config.json"
        self._config.write_text(config.model_dump_json())
        self._log = directory / "learner.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, size: int = 1, dies_before: str = "") -> None:
        """Starts it as `size` ranks; `dies_before` as in learner_process.py."""
        command = rank_command(size, _SCRIPT, self._config)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment | {"LEARNER_DIES_BEFORE": dies_before},
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    def rank_pids(self) -> list[int]:
        """The processes that torchrun started, by rank."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ranks = {
            int(entry.removeprefix("RANK=")): int(child)
            for child in children
            for entry in Path(f"/proc/{child}/environ").read_text().split("\0")
            if entry.startswith("RANK=")
        }
        return [ranks[rank] for rank in sorted(ranks)]

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self, seconds: float = 90.0) -> int:
        """What it exits with, once it does."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, seconds)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()


@pytest.fixture
def config(configure: Configure, redis_url: str, problems_file: Path) -> LearnerConfig:
    return configure(
        redis_url=redis_url,
        held_out=problems_file,
        total_steps=40,
        checkpoint_every=3,
        evaluation={"problems": 5, "every": 10},
        tracker="tensorboard",
        tracker_seconds=60.0,
    )


@pytest.fixture
def learner(config: LearnerConfig, tmp_path: Path) -> Iterator[LearnerProcess]:
    process = LearnerProcess(config, tmp_path)
    yield process
    process.end()


@pytest.fixture
async def replicas(streams: RunStreams, tmp_path: Path) -> AsyncIterator[None]:
    """Two replicas, in this test's loop."""
    one, two = (FakeReplica(streams, name, tmp_path / name) for name in ("one", "two"))
    async with one.live(), two.live():
        yield


async def status_when(streams: RunStreams, is_so: Callable[[RunStatus], bool], seconds: float = 60.0) -> RunStatus:
    """The run's status once it is so."""
    seen: list[RunStatus] = []

    async def find() -> RunStatus | None:
        with contextlib.suppress(Unavailable):
            if (status := await streams.status_keys.read()) is not None:
                seen[:] = [status]
                return status if is_so(status) else None
        return None

    found: RunStatus = await wait_until_async(find, seconds, lambda: f"the last status is {seen}")
    return found


def lines(config: LearnerConfig) -> list[dict[str, object]]:
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_whole(config: LearnerConfig) -> None:
    """The run has ended, and everything in its directory says the same."""
    state = CheckpointStore(config.run_dir / "checkpoints", 2).latest().state()
    accounts = state.ledger.accounts
    assert is_balanced(accounts)
    assert accounts.outstanding == 0
    assert accounts.failed == accounts.foreign == 0
    assert accounts.used + accounts.skipped == config.batch_size * config.total_steps
    assert state.progress.step == config.total_steps
    assert state.progress.totals.figures.trees == config.batch_size * config.total_steps
    steps = [line["step"] for line in lines(config) if "avg_at_k" not in line]
    assert steps == list(range(1, config.total_steps + 1))
    evaluations = [line["step"] for line in lines(config) if "avg_at_k" in line]
    assert evaluations == [0, 10, 20, 30, 40]
    assert_tracked(config)
    summary = json.loads((config.run_dir / "summary.json").read_text())
    assert summary.keys() == RunSummary.model_fields.keys()
    assert summary.keys() >= {
        *("sampler", "seed", "generated_tokens", "trajectories", "trees", "steps", "avg_at_k_before"),
        *("avg_at_k_after", "pass_at_k_after", "eff_rate", "avg_rate", "root_value", "ib_score", "cov_eta"),
        *("trajectories_per_1k_tokens", "tokens_per_second", "cache_hit_share", "wall_seconds"),
    }
    assert summary["steps"] == config.total_steps
    assert summary["trees"] == config.batch_size * config.total_steps
    assert summary["trajectories"] == 8 * summary["trees"]
    assert summary["avg_at_k_before"] is not None
    AutoModelForCausalLM.from_pretrained(config.run_dir / "policy")


def assert_tracked(config: LearnerConfig) -> None:
    """TensorBoard has every step and evaluation once, with the figures that metrics.jsonl has."""
    events = EventAccumulator(str(config.run_dir / "tensorboard")).Reload()
    for tag, name, is_evaluation in (("root_value", "root_value", False), ("held_out/avg_at_k", "avg_at_k", True)):
        written = [(line["step"], line[name]) for line in lines(config) if ("avg_at_k" in line) is is_evaluation]
        tracked = [(event.step, event.value) for event in events.Scalars(tag)]
        assert tracked == [(step, pytest.approx(value, rel=1e-6)) for step, value in written if value is not None]


@pytest.mark.usefixtures("replicas")
@pytest.mark.timeout(300)
async def test_a_learner_killed_in_mid_run_goes_on_and_nothing_is_lost_or_used_twice(
    learner: LearnerProcess, config: LearnerConfig, streams: RunStreams
) -> None:
    learner.start()
    seen = await status_when(streams, lambda status: status.step >= 7)
    learner.signal(signal.SIGKILL)
    assert seen.step < config.total_steps
    assert is_balanced(seen.accounts)
    await learner.exit_code()
    learner.start()
    assert await learner.exit_code() == 0, learner.log
    assert_whole(config)
    ended = await status_when(streams, lambda status: status.state is RunState.FINISHED)
    assert is_balanced(ended.accounts)
    assert ended.version is not None
    assert ended.version.generation == 2
    assert await streams.trees.ids() == await streams.tasks.ids() == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "moment",
    ["offer", *(pytest.param(one, marks=pytest.mark.slow) for one in ("copy", "write", "tokenizer", "adopt", "delta"))],
)
async def test_a_learner_that_dies_while_it_publishes_goes_on_and_replicas_have_what_it_published_last(
    moment: str, configure: Configure, redis_url: str, streams: RunStreams, tmp_path: Path
) -> None:
    config = configure(redis_url=redis_url, total_steps=8, checkpoint_every=3)
    learner = LearnerProcess(config, tmp_path)
    one, two = (FakeReplica(streams, name, tmp_path / name) for name in ("one", "two"))
    try:
        async with one.live(), two.live():
            learner.start(dies_before=moment)
            assert await learner.exit_code() == -signal.SIGKILL, learner.log
            learner.start()
            assert await learner.exit_code() == 0, learner.log
    finally:
        learner.end()
    status = await status_when(streams, lambda status: status.state is RunState.FINISHED)
    assert (status.step, status.version and status.version.generation) == (8, 2)
    assert is_balanced(status.accounts)
    (snapshot,) = (path for path in (config.run_dir / "published").iterdir() if path.name[0] != ".")
    manifest = read_manifest(snapshot)
    check_contents(snapshot, manifest)
    assert one.base == two.base == manifest.base
    assert manifest.version == status.version


@pytest.mark.slow
@pytest.mark.usefixtures("replicas")
async def test_sigterm_finishes_the_step_writes_a_checkpoint_and_a_later_life_goes_on(
    learner: LearnerProcess, config: LearnerConfig, streams: RunStreams, redis_process: RedisProcess
) -> None:
    """Before it, Redis is away for seconds."""
    learner.start()
    await status_when(streams, lambda status: status.step >= 4)
    redis_process.kill()
    await wait_until_async(lambda: "stream_unavailable" in learner.log)
    redis_process.start()
    reached = (await status_when(streams, lambda status: status.step >= 6)).step
    learner.signal(signal.SIGTERM)
    assert await learner.exit_code() == 128 + signal.SIGTERM, learner.log
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    assert checkpoint.state().progress.step >= reached
    stopped = await status_when(streams, lambda status: status.state is RunState.STOPPED, 5.0)
    assert stopped.step == checkpoint.state().progress.step
    assert not (config.run_dir / "summary.json").exists()
    learner.start()
    assert await learner.exit_code() == 0, learner.log
    assert_whole(config)


@pytest.mark.usefixtures("replicas")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
async def test_a_frozen_rank_is_named_and_when_one_dies_all_end_and_a_restart_goes_on(
    rank: int, learner: LearnerProcess, config: LearnerConfig, streams: RunStreams
) -> None:
    learner.start(size=2)
    await status_when(streams, lambda status: status.step >= 7)
    frozen = learner.rank_pids()[rank]
    if rank:  # a frozen rank 0 can say nothing of itself; its lease runs out
        os.kill(frozen, signal.SIGSTOP)
        seen = await status_when(streams, lambda status: "rank 1 does not answer" in status.message)
        assert seen.rank_silent_seconds[0] < 4 < seen.rank_silent_seconds[1]
        async with httpx.AsyncClient(base_url=await streams.status_keys.learner_url() or "") as http:
            assert "rank 1 does not answer" in (await http.get("/readyz")).text
            assert "rank 1 does not answer" in (await http.get("/healthz")).json()["problem"]
            assert 'ibtpo_learner_rank_silent_seconds{rank="1"' in (await http.get("/metrics")).text
        os.kill(frozen, signal.SIGCONT)
        await status_when(streams, lambda status: not status.message and status.step > seen.step)
    os.kill(frozen, signal.SIGKILL)
    assert await learner.exit_code() != 0
    learner.start(size=2)
    assert await learner.exit_code() == 0, learner.log
    assert_whole(config)
    if rank == 0:  # once is enough: there is nothing left to do, which is no failure
        learner.start(size=2)
        assert await learner.exit_code() == 0, learner.log


@pytest.mark.usefixtures("replicas")
@pytest.mark.timeout(300)
async def test_sigterm_of_one_rank_is_rank_0s_to_follow_and_another_number_of_ranks_goes_on(
    learner: LearnerProcess, config: LearnerConfig, streams: RunStreams
) -> None:
    learner.start(size=2)
    step = (await status_when(streams, lambda status: status.step >= 4)).step
    first, second = learner.rank_pids()
    os.kill(second, signal.SIGTERM)
    reached = (await status_when(streams, lambda status: status.step >= step + 2)).step
    os.kill(first, signal.SIGTERM)
    assert await learner.exit_code() != 0
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    assert reached <= checkpoint.state().progress.step < config.total_steps
    await status_when(streams, lambda status: status.state is RunState.STOPPED, 5.0)
    learner.start()
    assert await learner.exit_code() == 0, learner.log
    assert_whole(config)
