"""Builds the rollout service from its configuration; only this module names concrete parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from services.rollout.act_probe.watch import AGAIN_SECONDS, ActWatch
from services.rollout.app import OnDemandTrees, build_router
from services.rollout.config import Dtype, EngineKind, RolloutConfig
from services.rollout.engines.engine import Engine
from services.rollout.engines.sglang import ExternalServer, ManagedServer, SglangEngine, SglangMetrics
from services.rollout.grower import TreeGrower
from services.rollout.harvest import Harvest
from services.rollout.heartbeat import ReplicaHeartbeat, choose_name, choose_url
from services.rollout.metrics import RolloutMetrics
from services.rollout.policy_receiver import PolicyReceiver
from services.rollout.posted_scores import OnDemandScores
from services.rollout.reward_batcher import BatchingLimits, RewardBatcher
from services.rollout.snapshot_directory import SnapshotDirectory, resolve_user
from shared.clients import VerifierClient
from shared.errors import Unavailable
from shared.hub import log_downloads, resolve_model
from shared.kinds import permit_packages
from shared.plugins import OwnProcesses
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import RunStatus
from shared.protocol.weights import Offer
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.logs import configure_logs
from shared.runtime.loops import cancel
from shared.runtime.serve import serve
from shared.streams import RunStreams, connect
from shared.weights import SnapshotStore

_HTTP_SECONDS = 60.0
_OWN_PROCESSES = 2
"""In which samplers of the user's own decide."""


class RolloutService:
    """The parts of one replica, and the order in which they start and end."""

    def __init__(self, config: RolloutConfig) -> None:
        self.config = config
        self.name = choose_name(config.name)
        self.metrics = RolloutMetrics()
        self.engine = _build_engine(config, self.metrics)
        self._snapshots = SnapshotDirectory(resolve_user(config.snapshots), config.run, self.name)
        store = SnapshotStore(self._snapshots.path, keep=1, run=config.run)
        self.policy = PolicyReceiver(self.engine, store, self.metrics, config.max_bundle_bytes, _load_tokenizer)
        self.http = http_client(config.token, _HTTP_SECONDS)
        limits = BatchingLimits(verdict_seconds=config.verdict_seconds)
        self.rewards = RewardBatcher(VerifierClient(self.http, config.verifier_url), limits, self.metrics)
        self.own = OwnProcesses(config.plugin_seconds, _OWN_PROCESSES)
        self.grower = TreeGrower(self.engine, self.rewards, self.name, self.own)
        self.trees = OnDemandTrees(self.grower, self.policy, self.metrics, config.max_posted_trees)
        scores = OnDemandScores(self.engine, self.policy, self.metrics, config.max_posted_scores)
        self.harvest: Harvest | None = None
        self._heartbeat: ReplicaHeartbeat | None = None
        self._streams: RunStreams | None = None
        self.acts = ActWatch(
            self.engine,
            self.policy,
            self.metrics,
            read_status=self._read_status,
            give_back_claims=self._give_back,
            again_seconds=AGAIN_SECONDS,
        )
        self.app = create_app(
            "rollout",
            build_router(self.trees, scores, self.policy, self.acts, self.name, self._follow),
            lifespan=self._run,
            ready=self._why_not_ready,
            registry=self.metrics.registry,
            run=config.run,
            token=config.token,
            max_body_bytes=config.max_body_bytes,
            max_body_bytes_of_prefix={"/v1/weights/": config.max_bundle_bytes},
        )

    def _why_not_ready(self) -> str | None:
        if self.policy.is_serving:
            return None
        if unfit := self.policy.why_stale or self.policy.fault:
            return unfit
        if self.policy.problem and self.policy.version is None:
            return f"no weights yet: {self.policy.problem}"
        try:
            self.engine.limits  # noqa: B018 - raises before the first weights
        except Unavailable:
            return "no weights yet: waiting for the learner, or for rollout.model"
        return "the engine is being restarted"

    @asynccontextmanager
    async def _run(self, app: FastAPI) -> AsyncIterator[None]:
        app.state.drain.before_exit(self._give_up_start)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self._snapshots.remove)
            stack.push_async_callback(self.engine.close)
            stack.callback(self.own.close)
            await stack.enter_async_context(self.http)
            await stack.enter_async_context(self.rewards)
            if self.config.model is not None:
                model = await asyncio.to_thread(resolve_model, self.config.model, log_downloads())
                await self.policy.load_directory(model.directory)
            stack.push_async_callback(cancel, [self.acts.loop().start()])
            if self.config.redis_url is not None:
                await stack.enter_async_context(self._join(app, self.config.redis_url))
            yield

    async def _give_up_start(self) -> None:
        """Ends an engine that serves nothing: a server that starts or restarts would only use up the grace."""
        if self.engine.version is None:
            await self.engine.close()

    @asynccontextmanager
    async def _join(self, app: FastAPI, redis_url: str) -> AsyncIterator[None]:
        """Takes part in the run of this Redis while the block runs."""
        config = self.config
        streams = RunStreams(connect(redis_url), config.run, claim_after_seconds=config.claim_after_seconds)
        self._streams = streams
        harvest = self.harvest = Harvest(
            streams,
            self.grower,
            self.policy,
            self.rewards,
            self.metrics,
            replica=self.name,
            max_trees=config.max_trees,
            max_deliveries=config.max_deliveries,
            heartbeat_seconds=config.claim_after_seconds / 4,
        )
        url = choose_url(config.url, app.state.url, config.host, toward=redis_url)
        heartbeat = self._heartbeat = ReplicaHeartbeat(
            streams, self.policy, self.http, lambda: self._describe(app, url), config.learner_url
        )
        app.state.drain.before_exit(lambda: harvest.drain(config.grace_seconds * 0.8))
        loops = [loop.start() for loop in (*heartbeat.loops(), *harvest.loops())]
        try:
            yield
        finally:
            await cancel(loops)
            await harvest.drain(0.0)
            await heartbeat.leave()
            await streams.close()

    async def _follow(self, offer: Offer) -> None:
        if self._heartbeat is None:
            raise Unavailable("this replica takes part in no run, and knows no learner: send the bundle itself")
        await self._heartbeat.follow(offer)

    async def _read_status(self) -> RunStatus | None:
        """None where there is no run."""
        return await self._streams.status_keys.read() if self._streams else None

    async def _give_back(self) -> None:
        if self.harvest is not None:
            await self.harvest.give_back()

    def _describe(self, app: FastAPI, url: str) -> ReplicaInfo:
        draining = app.state.drain.begun.is_set()
        serving = ReplicaState.SERVING if self.policy.is_serving else ReplicaState.WAITING
        why_unread = self.harvest.why_unread if self.harvest else ""
        in_flight = self.trees.trees_in_flight + (self.harvest.trees_in_flight if self.harvest else 0)
        return ReplicaInfo(
            name=self.name,
            url=url,
            state=ReplicaState.DRAINING if draining else serving,
            version=self.policy.version,
            trees_in_flight=in_flight,
            loading=self.policy.loading,
            problem=self.policy.fault or self.policy.problem or self.rewards.problem or why_unread,
            reads_tasks=not why_unread,
            content_hash=self.policy.content_hash,
            act=self.acts.reading,
        )


def _load_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer  # takes seconds, and most replicas are never sent messages

    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def _build_engine(config: RolloutConfig, metrics: RolloutMetrics) -> Engine:
    """Imports the embedded engine only if it is configured: it alone needs torch."""
    if config.engine is EngineKind.SGLANG:
        server = ExternalServer(config.sglang) if config.sglang.url else ManagedServer(config.sglang)
        engine = SglangEngine(config.sglang, server, SglangMetrics(metrics.registry))
        metrics.registry.register(engine.series)
        return engine
    from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings

    settings = EmbeddedSettings(
        max_running_requests=config.max_running_requests,
        cache_bytes=config.cache_bytes,
        halve=None if config.dtype is Dtype.AUTO else config.dtype is Dtype.BFLOAT16,
    )
    embedded = EmbeddedEngine(settings)
    metrics.registry.register(embedded.counters)
    return embedded


def build(config: RolloutConfig) -> FastAPI:
    return RolloutService(config).app


def main(config: RolloutConfig) -> int:
    """Serves until a signal; returns the exit code."""
    configure_logs("rollout", config.log_level, log_json=config.log_json, secrets=[config.token])
    permit_packages(config.plugins)
    return serve(
        build(config),
        host=config.host,
        port=config.port,
        token=config.token,
        grace_seconds=config.grace_seconds,
        url_file=config.url_file,
    )
