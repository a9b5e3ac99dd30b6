"""Builds the learner from its configuration: the only place that names concrete parts."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import torch
from fastapi import FastAPI
from transformers.utils.logging import disable_progress_bar

from services.learner.app import build_router
from services.learner.config import LearnerConfig, Resume
from services.learner.metrics import LearnerMetrics
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Intake
from services.learner.queue.problems import EncodedProblem, ProblemLimits, fingerprint, prompt_encoder, read_problems
from services.learner.queue.task_sequence import Curriculum
from services.learner.ranks import Crew
from services.learner.record.checkpoint import Checkpoint, CheckpointStore
from services.learner.record.metrics_log import Journal
from services.learner.record.progress import Course
from services.learner.record.state import Books, LearnerState, RunProgress
from services.learner.record.tree_samples import TreeShelf
from services.learner.run import Parts, Run, Stopped
from services.learner.serving.evaluation import Evaluator
from services.learner.serving.heartbeat import Presence
from services.learner.serving.publisher import Publisher
from services.learner.training.policy import LanguageModel, Policy
from services.learner.training.process_group import ALONE, World
from services.learner.training.trainer import Trainer
from shared.errors import Conflict, IbtpoError, InvalidInput, Unavailable
from shared.protocol.status import RunStatus
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.drain import Drain, ExitCode
from shared.runtime.logs import configure_logs, event_logger
from shared.runtime.serve import serve
from shared.streams import RunStreams, connect
from shared.weights import SnapshotStore

log = event_logger(__name__)
_FAILED = 1
_KEEP_SNAPSHOTS = 3
_MAX_BODY_BYTES = 1 << 20


class LearnerService:
    """The parts of the learner, and how they live together. Reading model and data, it refuses what cannot be run."""

    def __init__(self, config: LearnerConfig, world: World = ALONE) -> None:
        torch.set_num_threads(config.threads)
        disable_progress_bar()  # the log is for machines
        self._config = config
        self._metrics = metrics = LearnerMetrics()
        self._http = http_client(config.token, config.publish_seconds)
        self._streams = streams = RunStreams(connect(config.redis_url), config.run)
        checkpoints = CheckpointStore(config.run_dir / "checkpoints", config.keep_checkpoints)
        self._checkpoint = checkpoint = _starting_point(config, checkpoints)
        self.crew = crew = _lead(config, checkpoint, world)
        train, held_out = _problems(config, crew.policy)
        state = _state(checkpoint, fingerprint(train))
        course = Course(config, state.progress)
        ledger = state.books.ledger()
        metrics.show_accounts(lambda: ledger.accounts)
        curriculum = Curriculum(config.run, config.seed, train, config.growth)
        feed = Feed(streams, curriculum, ledger, lambda: course.max_outstanding)
        parts = Parts(
            streams=streams,
            crew=crew,
            ledger=ledger,
            feed=feed,
            intake=Intake(
                streams,
                curriculum,
                ledger,
                feed,
                metrics,
                max_staleness=config.max_staleness,
                straggler_seconds=config.straggler_seconds,
                vocab_size=crew.policy.model.vocab_size,
            ),
            publisher=_publisher(config, streams, self._http, metrics),
            evaluator=Evaluator(streams, self._http, held_out, config.growth, config.evaluation),
            checkpoints=checkpoints,
            shelf=TreeShelf(config.run_dir / "trees", config.keep_trees, config.seed),
            journal=Journal(config.run_dir),
            metrics=metrics,
            worker=ThreadPoolExecutor(1, "torch", torch.set_num_threads, (config.threads,)),
        )
        self._worker = parts.worker
        self.run = Run(config, course, parts, owner=f"{socket.gethostname()}:{config.run_dir.resolve()}")
        self.app = create_app(
            "learner",
            build_router(parts.publisher, self._status, self.run.stop),
            lifespan=self._live,
            ready=self._not_ready,
            registry=metrics.registry,
            token=config.token,
            max_body_bytes=_MAX_BODY_BYTES,
        )
        self._presence = Presence(streams, self._url, self.run.status, self.run.stop, self.run.lose)
        metrics.show_status(self._status)

    def _url(self) -> str:
        return self._config.url or str(self.app.state.url)

    def _status(self) -> RunStatus:
        return self._presence.status()

    def _not_ready(self) -> str | None:
        return None if self.run.has_published else "no version of the policy is published yet"

    @asynccontextmanager
    async def _live(self, app: FastAPI) -> AsyncIterator[None]:
        living = asyncio.create_task(self._run_to_its_end(app.state.drain), name="run")

        async def stop_and_wait() -> None:
            self.run.interrupt()
            await asyncio.wait((living,))

        app.state.drain.before_exit(stop_and_wait)
        try:
            async with self._http:
                yield
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            self._worker.shutdown(wait=False, cancel_futures=True)
            await self._streams.close()

    async def _run_to_its_end(self, drain: Drain) -> None:
        """Lives the run; then the process has nothing left to serve."""
        if self.run.was_finished:
            log.info("run_was_finished", run=self._config.run)  # its board keeps what it said at its end
            _end(drain, ExitCode.DONE)
            return
        code = _FAILED
        try:
            await self.run.take()
            self._presence.join()
            await self.run.live(is_new=self._checkpoint is None)
            code = self._code()
        except Stopped:
            code = self._code()
        except IbtpoError as error:
            log.error("run_failed", error=str(error))
        except Exception:
            log.exception("run_failed")
        finally:
            try:
                await self._presence.leave()
            finally:
                await self._linger(drain)
                _end(drain, code)

    async def _linger(self, drain: Drain) -> None:
        """Serves on for a while, so that whoever scrapes it sees how the run ended; not when it is told to go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.linger_seconds):
                await drain.begun.wait()

    def _code(self) -> int:
        """Of a life that ended well: whoever restarts what failed is to go on with a run that is not over."""
        return ExitCode.DONE if self.run.is_over else ExitCode.INTERRUPTED


def _end(drain: Drain, code: int) -> None:
    """Ends the process, or says how a drain that has begun ended: beginning it twice would cut it short."""
    if drain.begun.is_set():
        drain.exit_code = code
    else:
        drain.begin(code)


def _starting_point(config: LearnerConfig, checkpoints: CheckpointStore) -> Checkpoint | None:
    latest = checkpoints.latest()
    if latest is not None and config.resume is Resume.NEVER:
        raise Conflict(
            f"{config.run_dir} holds the checkpoint {latest.directory.name}, and learner.resume is never: give another "
            "run_dir, remove this one, or resume=auto"
        )
    if latest is None and config.resume is Resume.REQUIRE:
        raise InvalidInput(
            f"learner.resume is require, but {config.run_dir} holds no checkpoint; resume=auto begins anew"
        )
    return latest


def _state(checkpoint: Checkpoint | None, data: str) -> LearnerState:
    """Where the run goes on. InvalidInput when the checkpoint's cursor counts in other data."""
    if checkpoint is None:
        return LearnerState(progress=RunProgress(data=data), books=Books())
    state = checkpoint.state()
    if state.progress.data != data:
        raise InvalidInput(
            f"checkpoint {checkpoint.directory} was trained on other problems than those in learner.data: its place in "
            "them means nothing here; give the data of before, or begin a new run"
        )
    return state


def _lead(config: LearnerConfig, checkpoint: Checkpoint | None, world: World) -> Crew:
    """The crew, by its first process, which tells the others where they begin."""
    world.tell(json.dumps(str(checkpoint.directory) if checkpoint else None).encode())
    return _crew(config, checkpoint, world)


def _crew(config: LearnerConfig, checkpoint: Checkpoint | None, world: World) -> Crew:
    directory, temperature = checkpoint.policy if checkpoint else config.model, config.growth.temperature
    policy = Policy(directory, temperature, config.optimizer, world)
    if checkpoint is not None:
        checkpoint.restore_optimizer(policy)
    reference = LanguageModel.load(config.model, temperature, world, is_frozen=True) if config.needs_reference else None
    return Crew(world, policy, Trainer(policy, reference, config, world))


def _problems(config: LearnerConfig, policy: Policy) -> tuple[tuple[EncodedProblem, ...], tuple[EncodedProblem, ...]]:
    """To train on, and held out."""
    encode = prompt_encoder(policy.tokenizer)
    answer = max(config.growth.max_tokens, config.evaluation.max_tokens or 0)
    limits = ProblemLimits(policy.model.vocab_size, policy.model.context_length, answer)
    held_out = read_problems(config.held_out, encode, limits) if config.held_out else ()
    return read_problems(config.data, encode, limits), held_out


def _publisher(
    config: LearnerConfig, streams: RunStreams, http: httpx.AsyncClient, metrics: LearnerMetrics
) -> Publisher:
    root = config.run_dir / "published"
    store = SnapshotStore(root, _KEEP_SNAPSHOTS, run=config.run)
    return Publisher(streams, http, store, root / ".draft", metrics, push_seconds=config.publish_seconds)


def build(config: LearnerConfig, world: World = ALONE) -> FastAPI:
    """The service's app; the run lives while it is served."""
    return LearnerService(config, world).app


def main(config: LearnerConfig) -> int:
    """Runs until the run is done or told to end; returns the exit code."""
    configure_logs("learner", config.log_level, secrets=[config.token or ""])
    try:
        world = World.join(config.device, config.precision)
        return lead(config, world) if world.is_first else follow(config, world)
    except IbtpoError as error:
        log.error("cannot_start", error=str(error))
        return ExitCode.STARTUP_FAILED


def lead(config: LearnerConfig, world: World) -> int:
    """Serves the run, as the first or only process of its world; returns the exit code.

    Where it ends badly, what the others are doing is not known: they notice when this process is gone.
    """
    service = LearnerService(config, world)
    code = serve(
        service.app,
        host=config.host,
        port=config.port,
        token=config.token,
        grace_seconds=config.grace_seconds,
        url_file=config.url_file,
    )
    if code == ExitCode.GRACE_EXCEEDED:
        os._exit(code)  # the step that has outlasted the grace would hold this process
    if code in (ExitCode.DONE, ExitCode.INTERRUPTED):
        service.crew.dismiss()
        world.end(code)
    return code


def follow(config: LearnerConfig, world: World) -> int:
    """Works for the first process until it is done; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the first process says when the work ends
    torch.set_num_threads(config.threads)
    disable_progress_bar()
    try:
        directory = json.loads(world.hear())
        _crew(config, Checkpoint(Path(directory)) if directory else None, world).follow()
    except Unavailable as error:
        log.error("cannot_follow", rank=world.rank, error=str(error))
        return _FAILED
    world.end(ExitCode.DONE)
    return ExitCode.DONE
