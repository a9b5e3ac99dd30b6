"""A replica's heartbeat in its run, on a real Redis and with a learner over real HTTP."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter, Response

from services.rollout.heartbeat import ReplicaHeartbeat, choose_name, choose_url, is_abandoned
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from shared.clients import LearnerClient
from shared.errors import Conflict, InvalidInput
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import RunState, RunStatus
from shared.protocol.weights import Manifest
from shared.runtime.client import http_client
from shared.streams import RunStreams, connect
from shared.tree.draw import WeightVersion
from shared.weights import SnapshotStore, stream_bundle, write_manifest
from tests.redis_process import RedisProcess
from tests.serving import serve_router
from tests.waiting import wait_until_async

ME = ReplicaInfo(name="a", url="http://a", state=ReplicaState.WAITING, version=None)


class StandInEngine:
    """Serves what it is given, once a test lets it."""

    def __init__(self) -> None:
        self.version: WeightVersion | None = None
        self.may_load = asyncio.Event()
        self.is_loading = False

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        self.is_loading = True
        await self.may_load.wait()
        self.version = version


@dataclass
class Learner:
    """Hands out one bundle, and counts how often."""

    manifest: Manifest
    directory: Path
    num_asked: int = 0
    url: str = ""

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.get("/v1/weights/latest")
        async def latest() -> Response:
            self.num_asked += 1
            bundle = b"".join([chunk async for chunk in stream_bundle(self.manifest, self.directory)])
            headers = {"X-Weight-Version": str(self.manifest.version)}
            return Response(bundle, headers=headers, media_type="application/octet-stream")

        return router


@dataclass
class Replica:
    """The parts of one that its heartbeat needs."""

    learner: Learner
    streams: RunStreams
    root: Path
    engine: StandInEngine = field(default_factory=StandInEngine)

    def __post_init__(self) -> None:
        engine: Any = self.engine
        self.policy = PolicyReceiver(engine, SnapshotStore(self.root, keep=1), RolloutMetrics(), 10**9, str)
        self.http = http_client(None, 5.0)
        self.heartbeat = ReplicaHeartbeat(self.streams, self.policy, self.http, lambda: ME, self.learner.url)


@pytest.fixture
async def replica(redis_url: str, manifest: Manifest, bundle: Path, tmp_path: Path) -> AsyncIterator[Replica]:
    learner = Learner(manifest, bundle)
    async with serve_router(learner.router()) as learner.url, redis(redis_url) as streams:
        await streams.status_keys.publish(RunStatus(run="r", state=RunState.TRAINING, version=manifest.version))
        replica = Replica(learner, streams, tmp_path / "store")
        async with replica.http:
            yield replica


@asynccontextmanager
async def redis(url: str) -> AsyncIterator[RunStreams]:
    streams = RunStreams(connect(url), "r")
    yield streams
    await streams.close()


async def test_a_joiner_fetches_the_weights_by_itself(replica: Replica) -> None:
    replica.engine.may_load.set()
    await replica.heartbeat.catch_up()
    assert replica.policy.version == replica.learner.manifest.version
    await replica.heartbeat.catch_up()
    assert replica.learner.num_asked == 1


async def test_weights_that_are_on_their_way_are_not_fetched_too(replica: Replica) -> None:
    learner = replica.learner
    push = asyncio.create_task(
        replica.policy.receive(stream_bundle(learner.manifest, learner.directory), learner.manifest.version)
    )
    await wait_until_async(lambda: replica.policy.is_receiving)
    await replica.heartbeat.catch_up()
    await wait_until_async(lambda: replica.engine.is_loading)
    for _ in range(3):
        await replica.heartbeat.catch_up()
    replica.engine.may_load.set()
    await push
    await replica.heartbeat.catch_up()
    assert (learner.num_asked, replica.policy.version) == (0, learner.manifest.version)


async def test_a_replica_that_outlived_its_run_follows_the_one_that_began_again(
    replica: Replica, manifest: Manifest, bundle: Path
) -> None:
    replica.engine.may_load.set()
    served = write_manifest("r", bundle, WeightVersion(1, 4, "dead"))
    await replica.policy.receive(stream_bundle(served, bundle), served.version)
    assert replica.policy.is_serving
    begun_again = replica.learner.manifest = write_manifest("r", bundle, WeightVersion(1, 0, "beef"))
    with pytest.raises(Conflict, match=r"1\.0-beef does not follow 1\.4-dead"):
        await replica.policy.receive(stream_bundle(begun_again, bundle), begun_again.version)
    status = RunStatus(run="r", state=RunState.TRAINING, version=begun_again.version, max_staleness=1)
    await replica.streams.status_keys.publish(status)
    await replica.heartbeat.catch_up()
    assert not replica.policy.is_serving  # for the run: it would take no tree of these weights
    assert replica.policy.why_stale == "its weights are 1.4-dead, the run is at 1.0-beef; they are on their way"
    await replica.heartbeat.catch_up()
    assert (replica.policy.version, replica.policy.is_serving) == (begun_again.version, True)
    late = write_manifest("r", bundle, WeightVersion(1, 5, "dead"))
    with pytest.raises(Conflict, match="does not follow"):
        await replica.policy.receive(stream_bundle(late, bundle), late.version)


async def test_a_replica_is_no_longer_ready_once_the_run_has_passed_its_weights_by(
    replica: Replica, manifest: Manifest, bundle: Path
) -> None:
    replica.engine.may_load.set()
    await replica.heartbeat.catch_up()
    for number, is_serving in ((2, True), (3, False)):
        version = WeightVersion(1, number)
        status = RunStatus(run="r", state=RunState.TRAINING, version=version, max_staleness=1)
        await replica.streams.status_keys.publish(status)
        replica.learner.manifest = manifest.model_copy(update={"content_hash": "0" * 64, "version": version})
        with contextlib.suppress(InvalidInput):
            await replica.heartbeat.catch_up()
        assert replica.policy.is_serving == is_serving
    assert "its weights are 1.1, the run is at 1.3: content_hash is 0000" in (replica.policy.why_stale or "")


async def test_a_version_that_can_never_be_served_is_fetched_once(replica: Replica, bundle: Path) -> None:
    (bundle / "tokenizer.json").write_text("[]")
    unfit = replica.learner.manifest = write_manifest("r", bundle, WeightVersion(1, 2, "beef"))
    await replica.streams.status_keys.publish(RunStatus(run="r", state=RunState.TRAINING, version=unfit.version))
    with pytest.raises(InvalidInput, match=r"tokenizer\.json"):
        await replica.heartbeat.catch_up()
    for _ in range(3):
        await replica.heartbeat.catch_up()
    assert replica.learner.num_asked == 1
    assert "tokenizer.json" in replica.policy.problem


async def test_a_replica_leaves_in_good_order_while_redis_is_away(
    replica: Replica, redis_process: RedisProcess
) -> None:
    redis_process.kill()
    await replica.heartbeat.leave()


async def test_what_an_abandoned_learner_still_hands_out_is_not_even_stored(replica: Replica) -> None:
    replica.engine.version = WeightVersion(2, 0)
    with pytest.raises(Conflict, match=r"is older than 2\.0"):
        await replica.policy.fetch(LearnerClient(replica.http, replica.learner.url))
    assert list(replica.root.iterdir()) == []


def test_a_name_given_by_the_host_tells_whether_its_process_has_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    assert choose_name("") == f"{host}-{os.getpid()}"
    assert not is_abandoned(choose_name(""))
    assert is_abandoned(f"{host}-{ended.pid}")
    for other in ("given-by-somebody", f"elsewhere-{ended.pid}", f"{host}-name", choose_name("given")):
        assert not is_abandoned(other)


def test_others_reach_a_replica_where_it_listens_unless_that_is_everywhere_or_configured() -> None:
    listening = "http://127.0.0.1:8001"
    assert choose_url("", listening, "127.0.0.1") == listening
    assert choose_url("http://r:1", listening, "0.0.0.0") == "http://r:1"
    everywhere = choose_url("", "http://0.0.0.0:8001", "0.0.0.0", toward="redis://127.0.0.1:6379/0")
    assert urlsplit(everywhere).port == 8001
    assert urlsplit(everywhere).hostname not in ("0.0.0.0", None)


def test_an_ipv6_address_of_a_replica_is_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.rollout.heartbeat.socket.getaddrinfo", lambda host, *_, **__: [_found(host)])
    assert choose_url("", "http://[::1]:8001", "::", toward="redis://[fd00::2]:6379/0") == "http://[fd00::7]:8001"


def _found(host: str) -> tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int, int, int]]:
    """What the resolver answers on a machine at fd00::7 that does not know Redis."""
    if host != socket.gethostname():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fd00::7", 0, 0, 0)
