"""A run in this process: what the learner serves, publishes and measures while it trains, and how it ends."""

import asyncio
import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from torch import Tensor

from services.learner.config import LearnerConfig, Resume
from services.learner.ledger import FIRST_TASK
from services.learner.model.policy import Kept, Policy
from services.learner.model.process_group import SINGLE_PROCESS
from services.learner.ranks import RankWorkers
from services.learner.record.checkpoint import CheckpointStore
from services.learner.wiring import Start, build
from services.verifier.config import MathConfig, VerifierConfig
from services.verifier.wiring import build as build_verifier
from shared.errors import Conflict, InvalidInput, Unavailable
from shared.protocol.status import Evaluation, RunState, RunStatus
from shared.protocol.waiting import WaitKind
from shared.runtime.drain import ExitCode
from shared.runtime.serve import open_listener, serve_in_background
from shared.streams import RunStreams
from shared.streams.keys import RUNS
from shared.tree.draw import WeightVersion
from shared.weights import SnapshotStore
from tests.accounts import is_balanced
from tests.learner.conftest import Configure
from tests.learner.fake_replica import Replica
from tests.learner.policies import write_policy
from tests.redis_process import RedisProcess
from tests.waiting import wait_until_async

DAY = 1.5e9


class RunningLearner:
    """A learner that serves its run, and a client of it."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.client = client
        self._drain = app.state.drain

    async def status(self) -> RunStatus:
        return RunStatus.model_validate((await self.client.get("/v1/status")).json())

    async def when(self, is_so: Callable[[RunStatus], bool]) -> RunStatus:
        async def find() -> RunStatus | None:
            return status if is_so(status := await self.status()) else None

        found: RunStatus = await wait_until_async(find, 40.0)
        return found

    async def end(self) -> int:
        """Its exit code, once its run has ended."""
        async with asyncio.timeout(40):
            await self._drain.begun.wait()
            return await self._drain.finish(30.0)

    def interrupt(self) -> None:
        """What SIGTERM does."""
        self._drain.begin()

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/metrics")).text
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])


@asynccontextmanager
async def running(config: LearnerConfig) -> AsyncIterator[RunningLearner]:
    app = build(config)
    async with (
        serve_in_background(app, open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield RunningLearner(app, client)


def checkpoints(config: LearnerConfig) -> list[int]:
    """The steps of those that are whole."""
    return [int(path.name) for path in (config.run_dir / "checkpoints").iterdir() if path.name.isdecimal()]


def evaluations_of(config: LearnerConfig) -> tuple[Evaluation, ...]:
    """Those that the latest checkpoint knows."""
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    return checkpoint.state().progress.evaluations


async def test_a_run_of_some_steps(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, held_out=problems_file, evaluation={"problems": 10})
    async with replica("one") as one, replica("two") as two, running(config) as learner:
        assert await learner.end() == 0
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is RunState.FINISHED
    assert status.accounts.used + status.accounts.skipped == 16
    assert [evaluation.step for evaluation in status.evaluations] == [0, 4]
    assert one.posted > 0
    assert two.posted > 0
    # versions come in order, and the last one everywhere
    assert one.loaded == sorted(one.loaded)
    assert one.loaded[-1] == two.loaded[-1] == status.version
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    assert is_balanced(checkpoint.state().ledger.accounts)
    assert len(list((config.run_dir / "trees").glob("*.msgpack"))) == 16


async def test_no_tree_is_trained_on_whose_weights_this_run_never_made(
    configure: Configure, redis_url: str, replica: Replica
) -> None:
    async with replica("lives-on") as other:
        other.version, other.push_error = WeightVersion(1, 0, "dead"), Unavailable("it serves another run's weights")
        async with running(configure(redis_url=redis_url)) as learner:
            status = await learner.when(lambda status: status.accounts.stale >= 12)
            assert status.accounts.used == status.accounts.skipped == 0
            assert "lives-on grew the last with 1.0-dead, the learner is at 1.0-" in status.message
            other.version = other.push_error = None  # now it fetches the run's
            assert await learner.end() == 0


async def test_a_finished_run_is_not_run_again(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, total_steps=1)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    before, status = (config.run_dir / "summary.json").stat(), await streams.status_keys.read()
    async with running(config) as again:
        assert await again.end() == 0
    assert (config.run_dir / "summary.json").stat() == before
    assert await streams.status_keys.read() == status


async def test_an_ended_run_is_served_for_a_while_unless_a_signal_ends_it(
    configure: Configure, redis_url: str, replica: Replica
) -> None:
    async with replica("one"), running(configure(redis_url=redis_url, linger_seconds=60.0)) as learner:
        await learner.when(lambda status: status.state is RunState.FINISHED)
        assert await learner.metric('ibtpo_learner_run_state{run="run",state="finished"}') == 1.0
        learner.interrupt()
        assert await learner.end() == ExitCode.DONE


async def test_a_run_ends_with_its_budget_of_tokens_and_leaves_nothing_to_grow(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, total_steps=None, max_generated_tokens=500)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    progress = checkpoint.state().progress
    assert progress.totals.usage.generated_tokens >= 500
    assert 1 <= progress.step < 10
    assert checkpoint.state().ledger.accounts.outstanding > 0
    assert await streams.tasks.ids() == await streams.trees.ids() == set()


async def test_the_latest_weights_are_served_whole_while_training_goes_on(
    configure: Configure, redis_url: str, replica: Replica, tmp_path: Path
) -> None:
    config = configure(redis_url=redis_url, total_steps=1000)
    store = SnapshotStore(tmp_path / "joiner", keep=1)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 2)
        before = WeightVersion(0, 0)
        for _ in range(3):
            await learner.when(lambda status, before=before: status.version is not None and status.version > before)
            async with learner.client.stream("GET", "/v1/weights/latest") as response:
                snapshot = await store.receive(response.aiter_bytes(), 1 << 26)
                assert response.headers["X-Weight-Version"] == str(snapshot.version)
            assert snapshot.version > before
            before = snapshot.version
        await learner.client.post("/v1/stop")
        assert await learner.end() == 0


async def test_before_the_first_version_it_is_not_ready_and_serves_no_weights(
    configure: Configure, redis_process: RedisProcess
) -> None:
    redis_process.kill()
    async with running(configure(redis_url=redis_process.url)) as learner:
        assert (await learner.client.get("/readyz")).status_code == 503
        response = await learner.client.get("/v1/weights/latest")
        assert response.status_code == 503
        assert "ask again" in response.json()["detail"]
        status = await learner.when(lambda status: bool(status.message))
        assert "does not answer" in status.message
        redis_process.start()
        await learner.when(lambda status: status.version is not None)
        assert (await learner.client.get("/readyz")).status_code == 200
        await learner.client.post("/v1/stop")
        assert await learner.end() == 0


@pytest.mark.drill
async def test_a_stop_requested_through_redis_ends_the_run_and_keeps_its_accounts(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, total_steps=1000)
    async with replica("one"):
        async with running(config) as learner:
            await learner.when(lambda status: status.step >= 3)
            fed = await learner.metric('ibtpo_learner_tasks_fed_total{run="run"}')
            await streams.status_keys.request_stop()
            assert await learner.end() == 0
        status = await streams.status_keys.read()
        assert status is not None
        assert status.state is RunState.STOPPED
        assert is_balanced(status.accounts)
        assert status.accounts.fed >= fed
        async with running(config) as again:
            later = await again.when(lambda now: now.step > status.step)
            assert is_balanced(later.accounts)
            assert later.accounts.used >= status.accounts.used
            await again.client.post("/v1/stop")
            assert await again.end() == 0


async def test_a_signal_in_mid_run_leaves_a_run_to_go_on_with_and_a_code_that_says_so(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, total_steps=1000)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 1)
        learner.interrupt()
        assert await learner.end() == ExitCode.INTERRUPTED
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is RunState.STOPPED
    checkpoint = CheckpointStore(config.run_dir / "checkpoints", 2).latest()
    assert checkpoint is not None
    assert checkpoint.state().progress.step == status.step


@pytest.mark.drill
async def test_training_goes_on_while_a_checkpoint_is_written_and_its_trees_stay_until_it_is(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), Policy.write_kept

    def write_when_allowed(policy: Policy, kept: Kept, directory: Path) -> None:
        assert directory.name == ".0.partial" or may_write.wait(40)
        write(policy, kept, directory)

    monkeypatch.setattr(Policy, "write_kept", write_when_allowed)
    config = configure(redis_url=redis_url, total_steps=1000, checkpoint_every=2, keep_checkpoints=99)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 4)  # and there the next one waits for this one
        assert checkpoints(config) == [0]
        assert (await streams.trees.depth()).pending >= 4 * config.batch_size
        may_write.set()
        await learner.when(lambda status: status.step >= 7)
        assert {0, 2, 4} <= {*checkpoints(config)}
        assert (await streams.trees.depth()).pending < 7 * config.batch_size
        learner.interrupt()
        assert await learner.end() == ExitCode.INTERRUPTED


@pytest.mark.drill
async def test_training_goes_on_while_weights_are_written_up_to_the_staleness_bound(
    configure: Configure, redis_url: str, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), RankWorkers.write_for_serving

    def write_when_allowed(ranks: RankWorkers, weights: dict[str, Tensor], directory: Path) -> None:
        assert not directory.parent.joinpath("held").exists() or may_write.wait(40)
        write(ranks, weights, directory)

    monkeypatch.setattr(RankWorkers, "write_for_serving", write_when_allowed)
    config = configure(redis_url=redis_url, total_steps=1000, max_staleness=2)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 1)
        (config.run_dir / "published" / "held").mkdir()
        step = (await learner.status()).step
        stuck = await learner.when(lambda status: status.step > step and _waits_for(status, WaitKind.PUBLISH))
        assert stuck.version is not None
        assert stuck.step > stuck.version.number
        may_write.set()
        await learner.when(lambda status: status.step > stuck.step + 2)
        learner.interrupt()
        assert await learner.end() == ExitCode.INTERRUPTED


def _waits_for(status: RunStatus, kind: WaitKind) -> bool:
    return status.waiting_for is not None and status.waiting_for.kind is kind


@pytest.mark.drill
async def test_no_tree_becomes_stale_because_weights_are_still_on_their_way(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica, streams: RunStreams
) -> None:
    """It would be grown with weights that are too old when its turn comes."""
    evaluation = {"problems": 2, "every": 0}  # it begins when both serve the first weights
    config = configure(
        redis_url=redis_url, max_staleness=1, total_steps=6, held_out=problems_file, evaluation=evaluation
    )

    async def are_live() -> bool:
        return len(await streams.replicas.live()) == 2

    async with replica("one") as one, replica("two") as two:
        await wait_until_async(are_live)
        one.load_seconds = two.load_seconds = 0.2
        async with running(config) as learner:
            assert await learner.end() == 0
    status = await streams.status_keys.read()
    assert status is not None
    assert (status.step, status.accounts.stale) == (6, 0)


async def test_a_redis_full_of_used_trees_is_relieved_by_a_checkpoint(
    configure: Configure, redis_process: RedisProcess, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_process.url, total_steps=1000, checkpoint_every=1000)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 1)
        redis_process.command("CONFIG", "SET", "maxmemory", "1")

        async def has_made_room() -> bool:
            return not (await streams.trees.depth()).pending and any(step > 0 for step in checkpoints(config))

        await wait_until_async(has_made_room)
        redis_process.command("CONFIG", "SET", "maxmemory", "0")
        step = (await learner.status()).step
        await learner.when(lambda status: status.step > step)
        await learner.client.post("/v1/stop")
        assert await learner.end() == 0


async def test_a_last_status_that_redis_refuses_does_not_keep_a_learner_alive(
    configure: Configure, redis_process: RedisProcess, replica: Replica
) -> None:
    async with replica("one"), running(configure(redis_url=redis_process.url, total_steps=1000)) as learner:
        await learner.when(lambda status: status.step >= 1)
        redis_process.command("SET", RUNS, "somebody else's")
        await learner.client.post("/v1/stop")
        assert await learner.end() == 0


@pytest.mark.drill
async def test_a_second_learner_is_refused_while_the_first_has_the_run(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams, tmp_path: Path
) -> None:
    config = configure(redis_url=redis_url, total_steps=1000)
    other = config.model_copy(update={"run_dir": tmp_path / "other"})
    async with replica("one"), running(config) as learner:

        async def is_training() -> bool:
            return (status := await streams.status_keys.read()) is not None and status.state is RunState.TRAINING

        await wait_until_async(is_training)
        async with running(other) as second:
            assert await second.end() == 1
        status = await streams.status_keys.read()
        assert status is not None
        assert status.state is RunState.TRAINING  # as the owner says
        assert (await learner.status()).state is RunState.TRAINING
        await learner.client.post("/v1/stop")
        assert await learner.end() == 0


async def test_a_learner_that_was_superseded_ends_without_touching_the_run(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.learner.serving.heartbeat._RENEW_SECONDS", 0.1)
    config = configure(redis_url=redis_url, total_steps=1000, checkpoint_every=1000)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 1)
        await streams.lease.acquire(f"{socket.gethostname()}:{config.run_dir.resolve()}", 0)
        assert await learner.end() == 1
        assert checkpoints(config) == [0]
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is not RunState.FAILED  # which is the new owner's to say


@pytest.mark.drill
async def test_replicas_that_take_no_weights_hold_training_for_a_bounded_time(
    configure: Configure, redis_url: str, replica: Replica
) -> None:
    config = configure(redis_url=redis_url, publish_seconds=0.3)
    async with replica("good"), replica("slow") as slow, replica("bad") as bad, running(config) as learner:
        slow.load_seconds, bad.push_error = 600.0, Unavailable("no room")
        assert await learner.end() == 0
        text = (await learner.client.get("/metrics")).text
    assert 'ibtpo_learner_weight_pushes_total{result="unreachable",run="run"} 0.0' not in text
    assert bad.loaded == slow.loaded == []


@pytest.mark.drill
async def test_an_evaluation_goes_on_when_a_replica_dies(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica, streams: RunStreams
) -> None:
    config = configure(
        redis_url=redis_url,
        held_out=problems_file,
        evaluation={"problems": 40, "problems_per_replica": 2},
        total_steps=1,
    )
    async with replica("one") as one, contextlib.AsyncExitStack() as doomed:
        two = await doomed.enter_async_context(replica("two"))
        async with running(config) as learner:
            await wait_until_async(lambda: two.posted >= 3)
            one.is_overloaded = True
            await doomed.aclose()
            posted = one.posted
            await wait_until_async(lambda: one.posted > posted)
            one.is_overloaded = False
            assert await learner.end() == 0
    assert [evaluation.problems for evaluation in evaluations_of(config)] == [40, 40]


async def test_an_evaluation_is_of_the_policy_as_it_is_published_for_it_or_not_yet(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica
) -> None:
    config = configure(
        redis_url=redis_url,
        held_out=problems_file,
        evaluation={"problems": 4, "every": 1},
        publish_every=2,
        total_steps=3,
    )
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    assert [(one.step, one.version.number) for one in evaluations_of(config)] == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.drill
async def test_an_evaluation_that_a_stop_cut_short_is_made_up_for_and_none_is_made_twice(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica
) -> None:
    config = configure(redis_url=redis_url, held_out=problems_file, evaluation={"problems": 4}, total_steps=1000)
    async with replica("one") as one:
        one.endless.add(0)
        results = config.run_dir / "evaluations" / "0" / "problems.jsonl"
        async with running(config) as learner:
            await learner.when(lambda status: status.state is RunState.EVALUATING)
            await wait_until_async(lambda: results.exists() and len(results.read_text().splitlines()) == 4)
            learner.interrupt()
            assert await learner.end() == ExitCode.INTERRUPTED
        one.endless.clear()
        one.posted = 0
        for _ in range(2):
            async with running(config) as again:
                await again.when(lambda status: bool(status.evaluations))
                again.interrupt()
                await again.end()
            assert [(evaluation.step, evaluation.problems) for evaluation in evaluations_of(config)] == [(0, 4)]
        assert one.posted == 1, "the other three problems were answered before"


async def test_each_held_out_set_is_measured_at_its_own_steps_and_all_of_them_at_the_end(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica
) -> None:
    held_out = {
        "often": {"source": str(problems_file), "k": 2, "problems": 3, "every": 1},
        "rare": {"source": str(problems_file), "k": 4, "problems": 2},
    }
    config = configure(redis_url=redis_url, held_out=held_out, total_steps=2)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    found = [(one.step, [(each.name, each.k, each.problems) for each in one.sets]) for one in evaluations_of(config)]
    both = [("often", 2, 3), ("rare", 4, 2)]
    assert found == [(0, both), (1, both[:1]), (2, both)]
    assert [one.is_partial for one in evaluations_of(config)] == [False, True, False]
    kept = {str(path.relative_to(config.run_dir)) for path in config.run_dir.glob("evaluations/*/*")}
    assert kept == {f"evaluations/{step}/{name}.jsonl" for step, sets in found for name, _, _ in sets}
    summary = json.loads((config.run_dir / "summary.json").read_text())
    assert [(one["name"], one["k"]) for one in summary["sets"]] == [("often", 2), ("rare", 4)]
    assert summary["k"] is None


@pytest.mark.drill
@pytest.mark.parametrize("kind", ["unjudged", "endless"])
async def test_a_problem_that_gets_no_answer_costs_an_evaluation_that_problem_alone(
    configure: Configure, redis_url: str, problems_file: Path, replica: Replica, kind: str
) -> None:
    bounds = {"problems": 10, "deadline_seconds": 3.0 if kind == "endless" else 8.0}
    config = configure(redis_url=redis_url, held_out=problems_file, evaluation=bounds, total_steps=1)
    async with replica("one") as one, running(config) as learner:
        getattr(one, kind).add(3)
        began = time.monotonic()
        evaluations = (await learner.when(lambda status: bool(status.evaluations))).evaluations
        assert [evaluation.problems for evaluation in evaluations] == [9]
        assert time.monotonic() - began < 30.0
        getattr(one, kind).clear()
        assert await learner.end() == 0


@pytest.mark.drill
@pytest.mark.parametrize(
    "change", [{"growth": {"max_tokens": 12}}, {"growth": {"temperature": 0.9}}, {"method": {"beta": 3.0}}]
)
async def test_a_run_that_is_resumed_with_other_growth_grows_its_open_tasks_anew(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams, change: dict[str, dict[str, float]]
) -> None:
    growth = {"sampler": {"kind": "independent", "initial_draws": 8}, "max_tokens": 16}
    config = configure(redis_url=redis_url, total_steps=1000, growth=growth)
    changed = configure(
        redis_url=redis_url,
        total_steps=1000,
        growth=growth | change.get("growth", {}),
        method=change.get("method", {}),
    )
    async with replica("one"):
        async with running(config) as learner:
            step = (await learner.when(lambda status: status.step >= 1)).step
            learner.interrupt()
            assert await learner.end() == ExitCode.INTERRUPTED
        assert await streams.tasks.ids() | await streams.trees.ids()
        async with running(changed) as again:
            later = await again.when(lambda status: status.step > step + 2)
            assert is_balanced(later.accounts)
            again.interrupt()
            assert await again.end() == ExitCode.INTERRUPTED


@pytest.mark.drill
async def test_a_chat_template_writes_the_date_on_which_the_run_began_and_a_changed_one_is_said(
    configure: Configure, redis_url: str, replica: Replica, problems_file: Path, tmp_path: Path
) -> None:
    model = write_policy(tmp_path / "chat", chat_template="w{{ strftime_now('%d') | int % 9 }} {{ more or 'w1' }}")
    message = [{"role": "user", "content": "w1"}]
    rows = [json.loads(line) | {"prompt": message} for line in problems_file.read_text().splitlines()]
    problems_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(redis_url=redis_url, model=model, total_steps=1)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    state = config.run_dir / "checkpoints/1/state.json"
    saved = json.loads(state.read_text())
    state.write_text(json.dumps(saved | {"progress": saved["progress"] | {"began": DAY}}))

    def resume(**changes: object) -> Start:
        changed = configure(redis_url=redis_url, model=model, total_steps=2, **changes)
        return Start.read(changed, CheckpointStore(config.run_dir / "checkpoints", 2), SINGLE_PROCESS)

    then = datetime.fromtimestamp(DAY).day % 9
    assert resume().sequence.task(FIRST_TASK).prompt_ids == (3 + then, 4)
    assert not resume().note
    changed = resume(chat_template_kwargs={"more": "w2"})
    assert (changed.sequence.task(FIRST_TASK).prompt_ids, changed.has_new_growth) == ((3 + then, 5), True)
    (model / "chat_template.jinja").write_text("w4")
    assert f"the chat template of {model} changed; the run goes on with the one" in resume().note


async def test_a_run_is_not_resumed_with_another_seed(configure: Configure, redis_url: str, replica: Replica) -> None:
    async with replica("one"), running(configure(redis_url=redis_url, total_steps=1)) as learner:
        assert await learner.end() == 0
    with pytest.raises(InvalidInput, match="the order of seed 0, so it cannot be resumed with seed 5: give seed=0"):
        build(configure(redis_url=redis_url, total_steps=2, seed=5))


async def test_a_run_whose_answers_cannot_be_judged_ends_before_anything_is_grown_and_is_not_restarted(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams, problems_file: Path
) -> None:
    problems_file.write_text(problems_file.read_text().replace('"gold": "7"', '"glod": "7"'))
    app = build_verifier(VerifierConfig(math=MathConfig(workers=0)))
    async with (
        serve_in_background(app, open_listener("127.0.0.1", 0, None)) as verifier_url,
        replica("one"),
        running(configure(redis_url=redis_url, verifier_url=verifier_url)) as learner,
    ):
        assert await learner.end() == ExitCode.STARTUP_FAILED
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is RunState.FAILED
    assert "problems.jsonl:8' (kind 'exact'): answer_key.gold: Field required" in status.message
    assert status.accounts.fed == 0


async def test_a_run_that_learns_nothing_ends_and_says_why(
    configure: Configure, redis_url: str, replica: Replica, streams: RunStreams
) -> None:
    config = configure(redis_url=redis_url, total_steps=1000, max_idle_steps=6)
    async with replica("one") as one, running(config) as learner:
        one.reward = 0.0
        assert await learner.end() == ExitCode.STARTUP_FAILED
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is RunState.FAILED
    assert "6 no tree whose rewards differ (mean reward 0.00)" in status.message


@pytest.mark.parametrize("room", [1000, 120_000])
async def test_a_full_disk_ends_the_run_with_one_line_that_says_so(
    configure: Configure,
    redis_url: str,
    replica: Replica,
    streams: RunStreams,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    room: int,
) -> None:
    """A bound on the size of files stands for it: on the policy, and on the optimizer alone."""
    config = configure(redis_url=redis_url, total_steps=1000, checkpoint_every=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with replica("one"), running(config) as learner:
        await learner.when(lambda status: status.step >= 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            assert await learner.end() == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    status = await streams.status_keys.read()
    assert status is not None
    assert status.state is RunState.FAILED
    assert "cannot write the run's files: " in status.message
    assert "make room, and start the learner again" in status.message
    assert [record.exc_info for record in caplog.records if record.msg == "run_failed"] == [False]


def test_what_cannot_be_run_is_refused_at_the_start(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="resume is require, but"):
        build(configure(resume="require"))
    with pytest.raises(InvalidInput, match="exceed the policy's context"):
        build(configure(growth={"sampler": "independent", "max_tokens": 100}))
    with pytest.raises(InvalidInput, match="no tokenizer that transformers can read"):
        build(configure(model=tmp_path))


async def test_a_checkpoint_is_not_mixed_with_other_data_or_a_new_start(
    configure: Configure, redis_url: str, replica: Replica, problems_file: Path, tmp_path: Path
) -> None:
    config = configure(redis_url=redis_url, total_steps=1)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    with pytest.raises(Conflict, match=r"holds the checkpoint 1, and learner\.resume is never"):
        build(config.model_copy(update={"resume": Resume.NEVER}))
    problems_file.write_text(problems_file.read_text().replace('"gold": "3"', '"gold": "4"'))
    with pytest.raises(InvalidInput, match="trained on other problems"):
        build(config)
    other = write_policy(tmp_path / "other", "llama")
    with pytest.raises(InvalidInput, match=r"began from another model than .*other, so it cannot be resumed"):
        build(config.model_copy(update={"model": other}))
