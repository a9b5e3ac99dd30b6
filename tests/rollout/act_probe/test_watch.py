"""A replica whose weights do not act as published is not ready, gives its claims back, and loads them afresh."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.rollout.act_probe.reading import read_act
from services.rollout.act_probe.watch import ActWatch
from services.rollout.config import RolloutConfig
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import EngineLimits, NotFinite, ScoreRequest, TokenScores
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.wiring import RolloutService
from shared.errors import IbtpoError, InvalidInput, MalformedAnswer, Unavailable
from shared.protocol.act_probe import ActReading
from shared.protocol.replica import ReplicaState
from shared.protocol.status import RunState, RunStatus
from shared.protocol.weights import Manifest
from shared.runtime.serve import open_listener, serve_in_background
from shared.streams import RunStreams, connect
from shared.tree.draw import WeightVersion
from shared.weights import SnapshotStore, stream_bundle, write_manifest
from tests.waiting import wait_until_async


async def learner_reading(bundle: Path, version: WeightVersion) -> ActReading:
    """Another engine's, of the same files: what the learner reads, but for rounding (test_reading.py)."""
    engine = EmbeddedEngine(EmbeddedSettings(trace=False))
    await engine.load(bundle, version)
    reading = await read_act(engine, version)
    await engine.close()
    assert reading is not None
    return reading


@dataclass
class Replica:
    """A whole one, in a run whose learner is a status in Redis."""

    service: RolloutService
    client: httpx.AsyncClient
    streams: RunStreams

    async def push(self, manifest: Manifest, bundle: Path) -> None:
        pushed = await self.client.put(f"/v1/weights/{manifest.version}", content=stream_bundle(manifest, bundle))
        pushed.raise_for_status()

    async def publish(self, reading: ActReading) -> None:
        """As a learner does."""
        status = RunStatus(run="r", state=RunState.TRAINING, version=reading.version, max_staleness=1, acts=(reading,))
        await self.streams.status_keys.publish(status)

    async def why_not_ready(self) -> str:
        answer = await self.client.get("/readyz")
        return "" if answer.status_code == 200 else str(answer.json()["detail"])

    async def metric(self, name: str) -> float:
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name) and "created" not in line)

    async def has_compared(self) -> bool:
        return self.service.acts._is_compared

    def spoil(self, name_part: str) -> None:
        """Changes weights in the engine's memory, and says so to nobody."""
        engine = self.service.engine
        assert isinstance(engine, EmbeddedEngine)
        assert engine._batch is not None
        for name, weight in engine._batch.model._model.named_parameters():
            if name_part in name:
                weight.data.zero_()


@pytest.fixture
async def replica(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    monkeypatch.setattr("services.rollout.act_probe.watch._LOOK_SECONDS", 0.02)
    monkeypatch.setattr("services.rollout.act_probe.watch._ASK_SECONDS", 0.02)
    monkeypatch.setattr("services.rollout.heartbeat.ANNOUNCE_SECONDS", 0.05)
    monkeypatch.setattr("services.rollout.wiring.AGAIN_SECONDS", 0.1)
    config = RolloutConfig(
        run="r", name="a", snapshots=tmp_path / "snapshots", verifier_url="http://127.0.0.1:9", redis_url=redis_url
    )
    service, streams = RolloutService(config), RunStreams(connect(redis_url), "r")
    async with (
        serve_in_background(service.app, open_listener("127.0.0.1", 0, None)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield Replica(service, client, streams)
    await streams.close()


async def test_weights_that_change_in_memory_are_found_and_loaded_afresh(
    replica: Replica, manifest: Manifest, bundle: Path
) -> None:
    published = await learner_reading(bundle, manifest.version)
    await replica.publish(published)
    await replica.push(manifest, bundle)
    await wait_until_async(replica.has_compared)
    policy = (await replica.client.get("/v1/policy")).json()
    assert (policy["act"]["version"], policy["act"]["logprob"]) == (policy["version"], published.logprob)
    assert (await replica.why_not_ready(), await replica.metric("ibtpo_rollout_weight_faults_total")) == ("", 0.0)

    replica.spoil("layers.2.self_attn.v_proj")

    async def is_mended() -> bool:
        return await replica.metric("ibtpo_rollout_weight_faults_total") == 1.0 and not await replica.why_not_ready()

    await wait_until_async(is_mended)
    assert await replica.metric("ibtpo_rollout_weights_faulty") == 0.0
    assert replica.service.acts.reading == published

    async def says_so() -> bool:
        [info] = await replica.streams.replicas.live()
        return (info.state, info.content_hash) == (ReplicaState.SERVING, manifest.content_hash)

    await wait_until_async(says_so)


async def test_weights_that_do_not_act_even_so_are_not_ready_until_others_come(
    replica: Replica, manifest: Manifest, bundle: Path
) -> None:
    reading = await learner_reading(bundle, manifest.version)
    shifted = tuple(logprob + 1.0 for logprob in reading.logprobs)  # what no loading brings about
    await replica.push(manifest, bundle)
    await replica.publish(ActReading.of(reading.version, reading.vocab_size, shifted, is_float32=True))

    async def says_why() -> str:
        return next((one.problem for one in await replica.streams.replicas.live() if "still do not" in one.problem), "")

    problem = await wait_until_async(says_why)
    assert "weights 1.1 do not act as published: 1 nats from the learner's on the act-probe" in problem
    assert (await replica.why_not_ready()).endswith(problem)
    [info] = await replica.streams.replicas.live()
    assert info.state is ReplicaState.WAITING
    assert await replica.metric("ibtpo_rollout_weights_faulty") == 1.0
    successor = write_manifest("r", bundle, WeightVersion(1, 2))
    await replica.publish(reading.model_copy(update={"version": successor.version}))
    await replica.push(successor, bundle)
    await wait_until_async(lambda: replica.service.policy.is_serving)
    assert await replica.why_not_ready() == ""
    assert await replica.metric("ibtpo_rollout_weight_faults_total") == 1.0


class StandInEngine:
    """Serves something, and scores as it is told."""

    computes_in_float32 = True
    limits = EngineLimits(vocab_size=9, context_length=40)

    def __init__(self) -> None:
        self.version = WeightVersion(1, 1)
        self.scores: Callable[[], Any] = lambda: None
        self.num_asked = 0

    async def load(self, snapshot: Path, version: WeightVersion, *, afresh: bool) -> None:
        assert afresh

    async def score(self, request: ScoreRequest) -> TokenScores:
        self.num_asked += 1
        match self.scores():
            case IbtpoError() as error:
                raise error
            case None:
                await asyncio.Event().wait()
            case float(logprob):
                return TokenScores((logprob,) * len(request.continuation), self.version, 0)
        raise AssertionError


@dataclass
class Watched:
    engine: StandInEngine
    policy: PolicyReceiver
    watch: ActWatch
    status: RunStatus | None = None
    num_given_back: int = 0


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    engine: Any = StandInEngine()
    metrics = RolloutMetrics()
    policy = PolicyReceiver(engine, SnapshotStore(tmp_path, keep=1), metrics, 10**9, str)

    async def read_status() -> RunStatus | None:
        return made.status

    async def give_back() -> None:
        made.num_given_back += 1

    watch = ActWatch(
        engine,
        policy,
        metrics,
        read_status=read_status,
        give_back_claims=give_back,
        again_seconds=0.0,
        read_seconds=0.05,
    )
    made = Watched(engine, policy, watch)
    return made


@pytest.mark.parametrize(
    "failure",
    [None, InvalidInput("this SGLang scores nothing"), MalformedAnswer("no input_token_logprobs"), Unavailable("down")],
    ids=["never", "cannot", "unreadable", "away"],
)
async def test_a_reading_that_fails_is_said_and_tried_again_and_nothing_else_happens(
    watched: Watched, failure: IbtpoError | None
) -> None:
    watched.engine.scores = lambda: failure
    for _ in range(3):
        await watched.watch.look()
    assert (watched.engine.num_asked, watched.watch.reading, watched.policy.fault) == (3, None, "")
    watched.engine.scores = lambda: -2.0
    await watched.watch.look()
    assert watched.watch.reading is not None
    assert watched.watch.reading.logprob == -2.0


async def test_scores_that_are_not_finite_are_a_fault(watched: Watched) -> None:
    published = ActReading.of(watched.engine.version, 9, (-2.0,) * 38, is_float32=True)
    watched.status = RunStatus(run="r", state=RunState.TRAINING, version=published.version, acts=(published,))
    for scores in (float("nan"), NotFinite("null")):
        watched.policy.trust()
        watched.engine.scores = lambda found=scores: found  # type: ignore[misc]
        await watched.watch.look()
        assert "log-probabilities of the act-probe are not finite" in watched.policy.fault
    assert watched.num_given_back == 1


async def test_weights_of_no_run_are_read_and_compared_with_nothing(watched: Watched) -> None:
    watched.engine.version, watched.engine.scores = WeightVersion(0, 0), lambda: -2.0
    published = ActReading.of(watched.engine.version, 9, (-9.0,) * 38, is_float32=True)
    watched.status = RunStatus(run="r", state=RunState.TRAINING, acts=(published,))
    await watched.watch.look()
    assert (watched.watch.reading is not None, watched.policy.fault) == (True, "")


async def test_what_replaced_weights_said_is_not_held_against_those_that_serve(watched: Watched) -> None:
    published = ActReading.of(watched.engine.version, 9, (-9.0,) * 38, is_float32=True)
    watched.engine.scores = lambda: -2.0

    async def read_status() -> RunStatus:
        watched.engine.version = WeightVersion(1, 2)  # loaded while Redis answers
        return RunStatus(run="r", state=RunState.TRAINING, acts=(published,))

    watched.watch._read_status = read_status
    await watched.watch.look()
    assert (watched.policy.fault, watched.num_given_back) == ("", 0)
