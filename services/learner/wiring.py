"""Builds the learner from its configuration: the only place that chooses concrete parts."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from fastapi import FastAPI
from transformers.utils.logging import disable_progress_bar

from services.learner.app import build_router
from services.learner.config import LearnerConfig, Resume
from services.learner.data.prompting import PromptModel
from services.learner.data.run_files import problem_files
from services.learner.data.source import DataSource
from services.learner.held_out.problem_set import HeldOutProblems, all_problems, import_name, source_of
from services.learner.metrics import LearnerMetrics
from services.learner.model.adapters import Adapters, holds_adapters
from services.learner.model.memory import checkpoint_activations
from services.learner.model.model_files import read_tokenizer, weights_fingerprint
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from services.learner.objective_config import Ties
from services.learner.queue.batches import BatchCollector, Refill
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Intake
from services.learner.queue.problems import ProblemLimits, ProblemSet, fingerprint, read_problems
from services.learner.queue.task_sequence import TaskSequence
from services.learner.queue.vetting import KeyVetting
from services.learner.ranks import RankWorkers, check_same_code
from services.learner.record.checkpoint import Checkpoint, CheckpointStore
from services.learner.record.metrics_log import MetricsLog
from services.learner.record.progress import Progress
from services.learner.record.state import SavedLedger, SavedProgress
from services.learner.record.tree_samples import TreeSamples
from services.learner.run import Parts, Run, Stopped
from services.learner.serving.acts import PublishedActs
from services.learner.serving.delivery import WeightDelivery
from services.learner.serving.evaluation import Evaluator
from services.learner.serving.heartbeat import LearnerHeartbeat
from services.learner.serving.publisher import Publisher
from services.learner.serving.trackers import Trackers
from services.learner.tracker_config import check_trackers
from services.learner.training.trainer import Trainer
from shared.clients import VerifierClient
from shared.errors import Conflict, IbtpoError, InvalidInput, Unavailable
from shared.hub import log_downloads, resolve_model
from shared.kinds import permit_packages
from shared.protocol.waiting import WaitKind
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.drain import Drain, ExitCode
from shared.runtime.logs import configure_logs, event_logger
from shared.runtime.serve import serve
from shared.streams import CommandRefused, RunStreams, connect
from shared.weights import Lineage, SnapshotStore, prompt_encoder

log = event_logger(__name__)
_FAILED = 1
_MAX_BODY_BYTES = 1 << 20


class LearnerService:
    """The learner's parts and their life. Construction reads model and data, and refuses what cannot be run."""

    def __init__(self, config: LearnerConfig, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
        torch.set_num_threads(config.threads)
        disable_progress_bar()  # the log is for machines
        self._config = config
        self._process_group = process_group
        self._http = http_client(config.token, config.publish_seconds)
        self._streams = RunStreams(connect(config.redis_url), config.run)
        self._torch_thread = ThreadPoolExecutor(1, "torch", torch.set_num_threads, (config.threads,))
        checkpoints = CheckpointStore(config.run_dir / "checkpoints", config.keep_checkpoints)
        self._start = start = Start.read(config, checkpoints, process_group)
        self.ranks = start.ranks
        self._progress = Progress(config, start.progress)
        self._progress.note = start.note
        self._parts = parts = self._create_parts(checkpoints)
        self.run = Run(config, self._progress, parts, owner=f"{socket.gethostname()}:{config.run_dir.resolve()}")
        self._heartbeat = LearnerHeartbeat(
            self._streams,
            self._progress,
            parts.ledger,
            lambda: config.url or str(self.app.state.url),
            self.run.stop,
            self.run.lose_lease,
            lambda: parts.batches.silent_seconds,
            parts.acts,
            lambda: parts.batches.outage or parts.intake.complaint,
            process_group,
            lambda: parts.trackers.complaint,
        )
        parts.metrics.show_status(self._heartbeat.status)
        self.app = self._create_app()

    def _create_parts(self, checkpoints: CheckpointStore) -> Parts:
        config, start, streams, metrics = self._config, self._start, self._streams, LearnerMetrics()
        ledger = start.ledger.load()
        publisher = self._create_publisher(metrics)
        feed = Feed(streams, start.sequence, ledger, lambda: self._progress.capacity(publisher.lag) + batches.num_extra)
        intake = Intake(
            streams,
            start.sequence,
            ledger,
            feed,
            metrics,
            origins=lambda: self._progress.origins,
            max_staleness=config.max_staleness,
            vocab_size=start.ranks.policy.model.vocab_size,
            wants_present_weights=config.deterministic,
        )
        batches = BatchCollector(
            ledger, feed, intake, metrics, straggler_seconds=config.straggler_seconds, refill=_refill(config)
        )
        verifier = VerifierClient(self._http, config.verifier_url) if config.verifier_url else None
        return Parts(
            streams=streams,
            vetting=KeyVetting(verifier, (*start.train.problems, *all_problems(start.held_out))),
            ranks=start.ranks,
            ledger=ledger,
            feed=feed,
            intake=intake,
            batches=batches,
            publisher=publisher,
            acts=PublishedActs(metrics, config.act_tolerance),
            evaluator=Evaluator(
                streams, self._http, start.held_out, config.evaluation_plan, config.run_dir / "evaluations", verifier
            ),
            checkpoints=checkpoints,
            tree_samples=TreeSamples(config.run_dir / "trees", config.keep_trees, config.seed),
            metrics_log=MetricsLog(config.run_dir),
            trackers=Trackers(config),
            metrics=metrics,
            torch_thread=self._torch_thread,
        )

    def _create_publisher(self, metrics: LearnerMetrics) -> Publisher:
        config, ranks = self._config, self._start.ranks
        directory = config.run_dir / "published"
        store = SnapshotStore(directory, keep=1, run=config.run)  # and those that are in use
        return Publisher(
            config.run,
            store,
            Lineage(directory / ".deltas"),
            WeightDelivery(self._streams, self._http, metrics, config.publish_seconds),
            metrics,
            directory / ".draft",
            ranks.write_for_serving,
            self._progress.note_published,
        )

    def _create_app(self) -> FastAPI:
        config, parts = self._config, self._parts
        app = create_app(
            "learner",
            build_router(parts.publisher, self._heartbeat.status, self.run.stop),
            lifespan=self._lifespan,
            ready=self._not_ready,
            registry=parts.metrics.registry,
            run=config.run,
            token=config.token,
            max_body_bytes=_MAX_BODY_BYTES,
        )
        app.state.health = self._health
        return app

    def _health(self) -> dict[str, str | float]:
        complaint = self._process_group.complaint
        age = round(time.monotonic() - self._progress.stepped_at, 1)
        return {"seconds_since_step": age, **({"problem": complaint} if complaint else {})}

    def _not_ready(self) -> str | None:
        if not self._progress.published:
            return "no version of the policy is published yet"
        return self._process_group.complaint or None

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(self._execute_run(app.state.drain), name="run")

        async def stop_and_wait() -> None:
            self.run.interrupt()
            await asyncio.wait((running,))

        app.state.drain.before_exit(stop_and_wait)
        try:
            async with self._http:
                yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._torch_thread.shutdown(wait=False, cancel_futures=True)
            await self._streams.close()

    async def _execute_run(self, drain: Drain) -> None:
        """Executes the run, then ends the process."""
        if self.run.was_finished:
            log.info("run_was_finished", run=self._config.run)  # its published status stays as it is
            _exit(drain, ExitCode.DONE)
            return
        code = _FAILED
        try:
            with contextlib.suppress(Stopped):
                await self.run.acquire_lease()
                self._heartbeat.start()
                await self.run.execute(is_new=self._start.is_new, has_new_growth=self._start.has_new_growth)
            # INTERRUPTED tells whatever restarts failed processes to resume the run
            code = ExitCode.DONE if self.run.is_over else ExitCode.INTERRUPTED
        except IbtpoError as error:
            if isinstance(error, InvalidInput | CommandRefused):
                code = ExitCode.STARTUP_FAILED  # a restart would fail likewise
            log.error("run_failed", error=str(error))
        except Exception:
            log.exception("run_failed")
        finally:
            try:
                await self._heartbeat.stop()
            finally:
                with self._progress.waits.on(WaitKind.TRACKERS, "trackers: the last rows are sent"):
                    await self._parts.trackers.close()
                await self._linger(drain)
                _exit(drain, code)

    async def _linger(self, drain: Drain) -> None:
        """Keeps serving /metrics for `linger_seconds`, unless a signal ends the process before."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(drain.begun.wait(), self._config.linger_seconds)


def _refill(config: LearnerConfig) -> Refill | None:
    if config.objective.ties is not Ties.REFILL:
        return None
    return Refill(lambda tree: config.trains_on(tree.rewards), config.objective.refill_limit * config.batch_size)


def _exit(drain: Drain, code: int) -> None:
    """Begins the drain; one that a signal began only gets its exit code, as a second beginning would cut it short."""
    if drain.begun.is_set():
        drain.exit_code = code
    else:
        drain.begin(code)


@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with, or goes on with from its checkpoint."""

    progress: SavedProgress
    ledger: SavedLedger
    ranks: RankWorkers
    train: ProblemSet
    held_out: tuple[HeldOutProblems, ...]
    sequence: TaskSequence
    note: str
    is_new: bool
    has_new_growth: bool
    """Whether tasks were grown otherwise before."""

    @classmethod
    def read(cls, config: LearnerConfig, checkpoints: CheckpointStore, process_group: ProcessGroup) -> "Start":
        """InvalidInput where model, data or checkpoint cannot be used, or do not belong together."""
        checkpoint, model = _latest_checkpoint(config, checkpoints), weights_fingerprint(config.model)
        before, ledger = SavedProgress(model=model, seed=config.seed, began=time.time()), SavedLedger()
        if checkpoint:
            state = checkpoint.state()
            before, ledger = state.progress, state.ledger
            _refuse_other_model(checkpoint, before, config.model, model)
        # from which the other ranks load theirs, and what they must agree with
        process_group.send_all(
            json.dumps((str(checkpoint.directory) if checkpoint else None, config.own_code)).encode()
        )
        ranks = _load_rank(config, checkpoint, process_group)
        log.info("reading_problems", what="reading the problems")
        train, held_out, left_out = _read_problems(config, ranks.policy, before.began or time.time())
        data, template = fingerprint(train.problems), ranks.policy.tokenizer.chat_template
        if checkpoint:
            _refuse_other_problems(checkpoint, before, data, config.seed)
        rendering = repr((template, config.chat_template_kwargs)) if template else ""
        sequence = TaskSequence(
            config.run,
            config.seed,
            train.problems,
            config.growth,
            config.score,
            rendering,
            repeats_attempts=config.deterministic,
        )
        changed = _template_note(config.model, template) if checkpoint else ""
        note = "; ".join(filter(None, (train.note, *left_out, changed)))
        progress = before.model_copy(update={"data": data, "growth": sequence.growth_fingerprint})
        has_new_growth = before.growth not in ("", progress.growth)
        return cls(progress, ledger, ranks, train, held_out, sequence, note, checkpoint is None, has_new_growth)


def _latest_checkpoint(config: LearnerConfig, checkpoints: CheckpointStore) -> Checkpoint | None:
    latest = checkpoints.latest()
    if latest is not None and config.resume is Resume.NEVER:
        raise Conflict(
            f"{config.run_dir} holds the checkpoint {latest.directory.name}, and learner.resume is never: give another "
            "run_dir, remove this one, or resume=auto"
        )
    if latest is None and config.resume is Resume.REQUIRE:
        raise InvalidInput(
            f"learner.resume is require, but {config.run_dir} holds no checkpoint; resume=auto starts a new run"
        )
    return latest


def _refuse_other_model(checkpoint: Checkpoint, progress: SavedProgress, path: Path, model: str) -> None:
    """InvalidInput where both are known and differ: KL and A-2 compare the policy with the first model."""
    if model and progress.model not in ("", model):
        raise InvalidInput(
            f"checkpoint {checkpoint.directory} began from another model than {path}, so it cannot be resumed with "
            "this one: give the earlier learner.model, or another run_dir for a new run"
        )


def _refuse_other_problems(checkpoint: Checkpoint, progress: SavedProgress, data: str, seed: int) -> None:
    """InvalidInput when the checkpoint is of other data or another seed."""
    if progress.seed not in (None, seed):
        raise InvalidInput(
            f"checkpoint {checkpoint.directory} counts its problems in the order of seed {progress.seed}, so it "
            f"cannot be resumed with seed {seed}: give seed={progress.seed}, or another run_dir for a new run"
        )
    if progress.data != data:
        raise InvalidInput(
            f"checkpoint {checkpoint.directory} was trained on other problems, or with other limits on their length, "
            "so it cannot be resumed on these: give the earlier data, or another run_dir for a new run"
        )


def _template_note(model: Path, template: object) -> str:
    """That the model's chat template is not the run's, which checkpoints keep; empty if it is, or the model gone."""
    with contextlib.suppress(InvalidInput):
        if read_tokenizer(model).chat_template != template:
            log.warning("chat_template_kept", model=str(model))
            return (
                f"the chat template of {model} changed; the run goes on with the one that it began with: give another "
                "run_dir for the new one"
            )
    return ""


def _load_rank(config: LearnerConfig, checkpoint: Checkpoint | None, process_group: ProcessGroup) -> RankWorkers:
    directory, temperature = checkpoint.policy if checkpoint else config.model, config.growth.temperature
    adapters = _adapters(config, checkpoint)
    if adapters is not None:
        directory = config.model
    policy = Policy(directory, temperature, config.optimizer, process_group, config.context_length, adapters)
    if process_group.is_rank0 and config.objective.share_prefixes and policy.model.sharing_fault:
        log.warning("prefixes_not_shared", model=str(directory), reason=policy.model.sharing_fault)
    if config.objective.router_coef:
        policy.model.balance_routers()
    if config.activation_checkpointing:
        checkpoint_activations(policy.model.module)
    if checkpoint is not None:
        checkpoint.restore_optimizer(policy)
    reference, context_length = None, config.context_length
    if config.needs_reference and adapters is not None:
        reference = policy.model.without_adapters()
    elif config.needs_reference:
        reference = LanguageModel.load(
            config.model,
            temperature,
            process_group,
            is_frozen=True,
            context_length=context_length,
            reference=config.reference,
        )
    trainer = Trainer(policy, reference, config, process_group)
    if checkpoint is not None:
        trainer.values.restore(checkpoint.directory)
    return RankWorkers(process_group, policy, trainer)


def _adapters(config: LearnerConfig, checkpoint: Checkpoint | None) -> Adapters | None:
    """The adapters to train, None where all weights are. InvalidInput where the checkpoint is of the other kind."""
    if checkpoint is not None and holds_adapters(checkpoint.policy) != (config.lora is not None):
        said = (
            "holds adapters, and there is no table [learner.lora]: give that of the earlier run"
            if config.lora is None
            else "holds a whole policy, and [learner.lora] would train adapters: leave that table out"
        )
        raise InvalidInput(f"checkpoint {checkpoint.directory} {said}, or give another run_dir for a new run")
    if config.lora is None:
        return None
    return Adapters(config.lora, config.model, config.seed, checkpoint.policy if checkpoint else None)


def _read_problems(
    config: LearnerConfig, policy: Policy, began: float
) -> tuple[ProblemSet, tuple[HeldOutProblems, ...], list[str]]:
    """Training problems, held-out sets and what they leave out, as on the day on which the run began."""
    day, kwargs = datetime.fromtimestamp(began), config.chat_template_kwargs
    encode = prompt_encoder(policy.tokenizer, kwargs, day)

    def read(sources: Sequence[DataSource], name: str, max_tokens: int, held_out: Sequence[DataSource]) -> ProblemSet:
        limits = ProblemLimits(policy.model.vocab_size, policy.model.context_length, max_tokens)

        def prompt_model() -> PromptModel:
            return PromptModel.of(policy.tokenizer, limits.context_length - max_tokens, kwargs, day)

        return read_problems(problem_files(sources, config.data_dir, name, prompt_model, held_out), encode, limits)

    sets, left_out = [], []
    for plan in config.held_out_plans:
        found = read((source_of(plan.source),), import_name(plan.name), plan.growth.max_tokens, ())
        sets.append(HeldOutProblems.of(plan, found.problems))
        left_out += [f"held_out.{plan.name}: {found.note}"] if found.note else []
    max_answer = max(config.growth.max_tokens, config.evaluation.max_tokens or 0)
    return read(config.data, "train", max_answer, config.held_out_sources), tuple(sets), left_out


def build(config: LearnerConfig, process_group: ProcessGroup = SINGLE_PROCESS) -> FastAPI:
    """The service's app; serving it executes the run."""
    return LearnerService(config, process_group).app


def main(config: LearnerConfig) -> int:
    """Runs this process, as rank 0 or another rank; returns the exit code."""
    configure_logs("learner", config.log_level, log_json=config.log_json, secrets=[config.token])
    permit_packages((*config.plugins, *config.own_packages))
    if config.deterministic:
        compute_deterministically()
    try:
        check_trackers(config.tracker, config.tracker_modes)
        process_group = ProcessGroup.join(config.device, config.precision)
        if process_group.is_rank0:  # which alone reads models
            return run_on_rank0(_locate_model(config), process_group)
        return serve_rank(config, process_group)
    except IbtpoError as error:
        log.error("cannot_start", error=str(error))
        return ExitCode.STARTUP_FAILED


def _locate_model(config: LearnerConfig) -> LearnerConfig:
    """With the directory of the model. One that cannot be had ends a run that begins; one that goes on from a
    checkpoint may not need it."""
    try:
        directory = resolve_model(config.model, log_downloads()).directory
    except IbtpoError:
        if CheckpointStore(config.run_dir / "checkpoints", config.keep_checkpoints).latest() is None:
            raise
        return config
    return config.model_copy(update={"model": directory})


def compute_deterministically() -> None:
    """From here on torch takes no algorithm whose result differs from run to run, or fails where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it is never read


def run_on_rank0(config: LearnerConfig, process_group: ProcessGroup) -> int:
    """Serves the run; returns the exit code. After a failure the other ranks notice that this process is gone."""
    with process_group.naming_failures():
        service = LearnerService(config, process_group)
    code = serve(
        service.app,
        host=config.host,
        port=config.port,
        token=config.token,
        grace_seconds=config.grace_seconds,
        url_file=config.url_file,
    )
    if code == ExitCode.GRACE_EXCEEDED:
        os._exit(code)  # a step that outlasts the grace would keep the process alive
    if code in (ExitCode.DONE, ExitCode.INTERRUPTED):
        service.ranks.shutdown()
        process_group.exit_together(code)
    process_group.exit_alone(code)
    return code


def serve_rank(config: LearnerConfig, process_group: ProcessGroup) -> int:
    """Carries out rank 0's commands until it shuts this rank down; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rank 0 decides when this rank ends
    torch.set_num_threads(config.threads)
    disable_progress_bar()
    code: int = ExitCode.DONE
    try:
        directory, own_code = json.loads(process_group.receive())
        check_same_code(config.own_code, own_code)
        _load_rank(config, Checkpoint(Path(directory)) if directory else None, process_group).serve()
    except Unavailable as error:
        log.error("rank0_gone", rank=process_group.rank, error=str(error))
        code = _FAILED
    except InvalidInput as error:
        log.error("rank_failed", rank=process_group.rank, error=str(error))
        process_group.report_failure(str(error))
        code = ExitCode.STARTUP_FAILED
    else:
        process_group.exit_together(code)
    process_group.exit_alone(code)
    return code
