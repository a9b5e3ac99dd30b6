"""A run from its lease to its summary, step by step."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from services.learner.config import LearnerConfig
from services.learner.ledger import End, Ledger
from services.learner.metrics import Blocked, EvaluationResult, LearnerMetrics, Phase, StepResult
from services.learner.queue.batches import BatchCollector
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Arrival, Intake, SettledEntries
from services.learner.queue.vetting import KeyVetting
from services.learner.ranks import RankWorkers
from services.learner.record.checkpoint import CheckpointStore
from services.learner.record.figures import measure_trees, sampling_figures, step_figures, summary
from services.learner.record.metrics_log import MetricsLog
from services.learner.record.progress import Progress
from services.learner.record.state import LearnerState, SavedLedger
from services.learner.record.step_watch import StepWatch
from services.learner.record.tree_samples import TreeSamples
from services.learner.serving.acts import PublishedActs
from services.learner.serving.evaluation import Evaluator
from services.learner.serving.publisher import Publisher
from services.learner.serving.trackers import Trackers
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from services.learner.waits import Wait
from shared.errors import Conflict, Unavailable
from shared.protocol.figures import StepFigures
from shared.protocol.status import RunState
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.protocol.waiting import WaitKind
from shared.runtime.logs import event_logger
from shared.streams import RunStreams, StreamsFull
from shared.tree.diagnostics import TreeFigures
from shared.weights import Snapshot

log = event_logger(__name__)
T = TypeVar("T")
_Writing: TypeAlias = tuple[Path, Future[None]]
"""The draft of a checkpoint, and its parts, once they are in it."""
_RETRY_SECONDS = 0.5
_WAITS = {
    "waiting_for_redis": (
        WaitKind.REDIS,
        "Redis",
        "is it up, and learner.redis_url its address? The run goes on by itself",
    ),
    "waiting_for_verifier": (
        WaitKind.VERIFIER,
        "the verifier, which reads the answer keys",
        "is it up, and learner.verifier_url its address? The run goes on by itself",
    ),
}
"""What is waited for, and what helps, by the event that the log has."""
_GAP_TREES = 32
"""On so many of an evaluation's trees the learner's log-probabilities are compared with the engine's."""


class Stopped(Exception):
    """The run was asked to stop, or lost its lease."""


@dataclass(frozen=True, slots=True)
class PendingCheckpoint:
    """One that is written while training goes on, and what may be acknowledged once it is on disk."""

    settled: SettledEntries
    started: float
    written: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class Parts:
    streams: RunStreams
    vetting: KeyVetting
    ranks: RankWorkers
    ledger: Ledger
    feed: Feed
    intake: Intake
    batches: BatchCollector
    publisher: Publisher
    acts: PublishedActs
    evaluator: Evaluator
    checkpoints: CheckpointStore
    tree_samples: TreeSamples
    metrics_log: MetricsLog
    trackers: Trackers
    metrics: LearnerMetrics
    torch_thread: ThreadPoolExecutor
    """The one thread in which torch works, while the event loop answers requests."""


class Run:
    """Feeds, learns, publishes, evaluates and checkpoints until the run is done or stopped.

    One thing happens at a time: only this sequence changes the ledger, the progress and the policy.
    """

    def __init__(self, config: LearnerConfig, progress: Progress, parts: Parts, owner: str) -> None:
        self._config = config
        self._progress = progress
        self._parts = parts
        self._owner = owner
        self._stop = asyncio.Event()
        self._watch = StepWatch(config.max_idle_steps)
        self._is_resumable = True
        self._checkpoint_seconds = 0.0
        """For which checkpoints kept training waiting, since the last step."""
        self._publish_seconds = 0.0
        """The same of publishing."""
        self._pending: PendingCheckpoint | None = None
        self._end: BaseException | None = None
        """What ends the run at once, without a checkpoint: a lost lease, or weights that cannot be written."""
        self._has_logged_values = False

    def stop(self) -> None:
        """Ends the run after the step in progress, with a checkpoint."""
        self._is_resumable = False
        self.interrupt()

    def interrupt(self) -> None:
        """As `stop`, but another process should resume the run."""
        if not self._stop.is_set():
            log.info("stop_requested", step=self._progress.step)
            self._progress.state = RunState.STOPPING
            self._stop.set()

    def lose_lease(self, error: Conflict) -> None:
        """Ends at once, without writing or publishing anything: another learner has the run."""
        self._end_at_once(error)

    def _end_at_once(self, error: BaseException) -> None:
        self._end = self._end or error
        self._parts.publisher.abandon()
        self._stop.set()

    @property
    def is_over(self) -> bool:
        """Whether nobody should resume it: it has finished, or was asked to stop."""
        return self._progress.state is RunState.FINISHED or not self._is_resumable

    @property
    def was_finished(self) -> bool:
        """Whether an earlier process has finished it."""
        return self._parts.metrics_log.is_finished and self._progress.is_done

    async def acquire_lease(self) -> None:
        """Waits for Redis and takes the run's lease. Conflict while another learner holds it."""
        if reason := await self._retry(self._parts.streams.vet):
            log.warning("redis_may_lose_entries", reason=reason)
        at_least = self._progress.version.generation + 1
        lease = self._parts.streams.lease
        generation = await self._retry(lambda: lease.acquire(self._owner, at_least))
        self._progress.begin_generation(generation, lease.origin)
        log.info("lease_acquired", run=self._config.run, generation=generation, step=self._progress.step)

    async def execute(self, *, is_new: bool, has_new_growth: bool = False) -> None:
        """Trains until the run is done or stopped; the lease must be held. A run that is resumed `has_new_growth` if it
        grew its tasks otherwise before."""
        try:
            try:
                await self._begin(is_new, has_new_growth)
                while not self._progress.is_done:
                    await self._step()
                await self._finish()
            except Stopped:
                await self._end_early()
        except Exception as error:  # whatever ends the run is in its last status
            failure = _describe_write(error, self._config.run_dir) if isinstance(error, OSError) else error
            self._progress.state, self._progress.message = RunState.FAILED, str(failure)
            raise failure from error
        finally:
            await self._parts.publisher.close()

    async def _begin(self, is_new: bool, has_new_growth: bool) -> None:
        streams, parts, step = self._parts.streams, self._parts, self._progress.step
        parts.metrics_log.drop_after(step, self._progress.evaluated_steps)
        parts.trackers.start(step)
        if is_new:
            await self._retry(streams.forget)  # an earlier run of this name may have left entries
        await self._retry(streams.status_keys.clear_stop)
        await self._retry(parts.vetting.vet, event="waiting_for_verifier")
        if has_new_growth:
            await self._replace_tasks("growth, method or chat template changed since the checkpoint")
        elif self._config.deterministic and not is_new:
            await self._replace_tasks("deterministic: trees of the weights before the restart are grown again")
        if not is_new:
            await self._retry(parts.feed.catch_up)
            await self._retry(parts.intake.recover)
        await self._publish()
        await self._evaluate_if_due()
        if step == 0:
            await self._checkpoint()

    async def _replace_tasks(self, reason: str) -> None:
        """Discards the tasks and trees on the streams and sends what is outstanding as it is made now."""
        await self._retry(self._parts.streams.clear)
        outstanding = self._parts.ledger.outstanding
        self._parts.feed.resend(outstanding)
        log.warning("tasks_replaced", tasks=len(outstanding), reason=reason)
        await self._checkpoint()  # which knows from now on how the tasks on the streams are grown
        await self._settle_checkpoint()

    async def _step(self) -> None:
        """One step of the algorithm, and what is due after it."""
        progress, parts = self._progress, self._parts
        progress.state = RunState.TRAINING
        if not self._config.max_staleness:
            await self._deliver()  # trees of earlier weights would be of no use
        started = time.monotonic()
        arrivals = await self._collect()
        collected = time.monotonic()
        await self._keep_replicas_up()
        with suppress(Unavailable):
            await parts.feed.top_up()  # what it held back until replicas have the weights
        ready = time.monotonic()
        ends = [End.USED if self._config.trains_on(one.tree.rewards) else End.SKIPPED for one in arrivals]
        with progress.waits.on(WaitKind.UPDATE, f"update of step {progress.step + 1}"):
            update, figures, usage = await self._in_torch_thread(self._learn, [one.tree for one in arrivals], ends)
        parts.intake.settle(zip(arrivals, ends, strict=True))
        learned = time.monotonic()
        progress.add_step(figures, usage, is_updated=update.applied > 0, seconds=learned - started)
        await self._publish_if_due()
        published = time.monotonic()
        seconds = {
            Phase.INTAKE: collected - started,
            Phase.UPDATE: learned - ready,
            Phase.PUBLISH: self._publish_seconds,
            Phase.CHECKPOINT: self._checkpoint_seconds,
        }
        self._checkpoint_seconds = self._publish_seconds = 0.0
        sampling = sampling_figures(figures, usage, published - started)
        trees = [(arrival.tree, arrival.staleness) for arrival in arrivals]
        step = step_figures(progress.step, sampling, update, trees, seconds)
        times = {"time": time.time(), "run_seconds": progress.saved.totals.wall_seconds}
        self._record_step(step.model_copy(update=times), update)
        if self._pending and self._pending.written.done():
            await self._settle_checkpoint()
        if progress.step % self._config.checkpoint_every == 0:
            await self._checkpoint()  # before the evaluation, which a restarted learner then goes on with
        await self._evaluate_if_due()

    async def _collect(self) -> tuple[Arrival, ...]:
        """The next batch. Where used trees fill Redis, a checkpoint makes room."""
        while True:
            try:
                progress = self._progress
                size = self._config.batch_size
                with progress.waits.on(
                    WaitKind.TREES, f"trees of step {progress.step + 1}", unit="trees", needs_replicas=True
                ) as wait:
                    batch = self._parts.batches.collect(size, progress.version, progress.tokens_left, wait)
                    return await self._unless_stopped(batch)
            except StreamsFull:
                await self._checkpoint()
                await self._settle_checkpoint()

    def _learn(self, scored: Sequence[ScoredTree], ends: Sequence[End]) -> tuple[Update, TreeFigures, TreeUsage]:
        """In the torch thread: one step on the trees with a signal, and the figures of all."""
        progress, config = self._progress, self._config
        trees = [BuiltTree.of(one) for one in scored]
        used = [tree for tree, end in zip(trees, ends, strict=True) if end is End.USED]
        ties = [tree for tree, end in zip(trees, ends, strict=True) if end is not End.USED]
        lr = config.optimizer.learning_rate(progress.step, progress.share_done)
        update = self._parts.ranks.step(used, progress.version, lr, f"{config.seed} {progress.step}", ties)
        self._parts.tree_samples.add(scored, progress.saved.totals.figures.trees)
        values_of = self._parts.ranks.bounded_values()
        measured = measure_trees(trees, values_of)
        if values_of.reason and not self._has_logged_values:
            self._has_logged_values = True
            log.warning("values_failed", reason=values_of.reason)
        return update, *measured

    def _record_step(self, figures: StepFigures, update: Update) -> None:
        self._progress.figures = figures
        result = _result_of(update)
        self._parts.metrics.record_step(figures, result)
        self._parts.metrics_log.append(figures)
        log.info("step", **figures.model_dump(exclude_none=True), result=result, version=str(self._progress.version))
        self._watch.add(figures, result)
        if self._watch.warning and not self._progress.warning:
            log.warning("steps_come_to_nothing", reason=self._watch.warning)
        self._progress.warning = self._watch.warning
        self._watch.require_progress()

    async def _publish_if_due(self) -> None:
        progress, begun = self._progress, self._parts.publisher.begun
        behind = progress.version.number - (begun.number if begun else -1)
        if behind >= self._config.publish_every or (behind and progress.is_done):
            await self._publish()

    async def _publish(self) -> None:
        """Copies the policy. The copy is written and delivered while training goes on."""
        stepped, version, publisher = time.monotonic(), self._progress.version, self._parts.publisher
        with self._blocked_by(Blocked.WRITING, f"weights {version.label}: earlier ones are still written"):
            await publisher.make_room()
        self._require_lease()
        with self._blocked_by(Blocked.ACT, f"weights {version.label}: reading the act-probe"):
            await self._in_torch_thread(self._parts.acts.read, self._parts.ranks, version)
        with self._blocked_by(Blocked.COPY, f"weights {version.label}: copying them"):
            weights = await self._in_torch_thread(self._parts.ranks.copy_for_serving, publisher.take_spent())
        self._require_lease()
        publisher.begin(weights, version, stepped).add_done_callback(self._after_writing)

    def _after_writing(self, written: asyncio.Task[Snapshot]) -> None:
        if not written.cancelled() and (error := written.exception()) is not None:
            self._end_at_once(error)

    async def _deliver(self) -> None:
        """Waits until the live replicas serve the last published version, or are too slow for its deadline."""
        label = self._progress.version.label
        with self._blocked_by(Blocked.REPLICAS, f"weights {label}: replicas take them", unit="replicas") as wait:
            await self._unless_stopped(self._parts.publisher.delivered(wait))
        self._require_lease()

    async def _keep_replicas_up(self) -> None:
        """Before an update, waits for the live replicas whose trees it would make too old, m < min(P, N + 1 − S), while
        newer weights are on their way to them; P is the last published version, S the staleness bound."""
        begun = self._parts.publisher.begun
        assert begun is not None
        at_least = min(begun.number, self._progress.version.number + 1 - self._config.max_staleness)
        oldest = replace(begun, number=max(0, at_least))
        with self._blocked_by(Blocked.REPLICAS, f"weights {oldest.label}: slower replicas take them") as wait:
            await self._unless_stopped(self._parts.publisher.keep_up(oldest, wait))

    @contextmanager
    def _blocked_by(self, by: Blocked, what: str, unit: str = "") -> Iterator[Wait]:
        """What training waits for so that its weights are published."""
        started = time.monotonic()
        with self._progress.waits.on(WaitKind.PUBLISH, what, unit=unit) as wait:
            try:
                yield wait
            finally:
                seconds = time.monotonic() - started
                self._publish_seconds += seconds
                self._parts.metrics.blocked_seconds.labels(by).inc(seconds)

    async def _evaluate_if_due(self) -> None:
        """Evaluates before the first step, then every so many steps; `_finish` evaluates after the last."""
        if not self._progress.is_done and self._parts.evaluator.is_due(self._progress.step):
            await self._evaluate(of_all=False)

    async def _evaluate(self, *, of_all: bool) -> None:
        """Measures held-out accuracy of the present policy, once per step; logs a failure and goes on."""
        progress, metrics, evaluator = self._progress, self._parts.metrics, self._parts.evaluator
        step, version = progress.step, progress.version
        if progress.evaluation and not (of_all and progress.evaluation.is_partial):
            return
        if self._parts.publisher.begun != version:
            await self._publish()
        await self._deliver()
        before, progress.state = progress.state, RunState.EVALUATING
        try:
            weights = self._parts.publisher.latest.manifest.content_hash if self._parts.publisher.latest else ""
            what = f"evaluation at step {step}"
            with progress.waits.on(WaitKind.EVALUATION, what, unit="problems", needs_replicas=True) as wait:
                probe = await self._unless_stopped(evaluator.evaluate(step, version, weights, wait, of_all=of_all))
        except Unavailable as error:
            metrics.evaluations.labels(EvaluationResult.FAILED).inc()
            log.error("evaluation_failed", step=step, error=str(error))
            return
        finally:
            if progress.state is RunState.EVALUATING:
                progress.state = before
        if probe is not None:
            evaluation = probe.evaluation
            if probe.trees:
                with progress.waits.on(
                    WaitKind.EVALUATION, "comparing the learner's log-probabilities with the engine's"
                ):
                    gap = await self._in_torch_thread(self._parts.ranks.engine_gap, probe.trees[:_GAP_TREES], version)
                evaluation = evaluation.model_copy(update={"engine_gap": gap})
            progress.add_evaluation(evaluation)
            metrics.record_evaluation(evaluation)
            self._parts.metrics_log.append(evaluation)
            log.info("evaluated", **evaluation.model_dump(exclude={"version"}), version=str(version))

    async def _checkpoint(self) -> None:
        """Copies what a checkpoint keeps, and has it written while training goes on; `_settle_checkpoint` follows."""
        await self._settle_checkpoint()
        self._require_lease()
        started, settled = time.monotonic(), self._parts.intake.settled
        state = LearnerState(progress=self._progress.saved, ledger=SavedLedger.of(self._parts.ledger))
        with self._progress.waits.on(WaitKind.CHECKPOINT, "checkpoint: copying what it keeps"):
            writing = await self._in_torch_thread(self._begin_checkpoint, state)
        self._pending = PendingCheckpoint(settled, started, asyncio.create_task(self._write_checkpoint(state, writing)))
        self._checkpoint_seconds += time.monotonic() - started

    def _begin_checkpoint(self, state: LearnerState) -> _Writing:
        draft = self._parts.checkpoints.draft(state.progress.step)
        return draft, self._parts.ranks.begin_checkpoint(draft)

    async def _write_checkpoint(self, state: LearnerState, writing: _Writing) -> None:
        """Until all ranks have written their parts, and they are a checkpoint."""
        draft, parts_written = writing
        await asyncio.wrap_future(parts_written)
        self._require_lease()
        await asyncio.to_thread(self._parts.checkpoints.finish, draft, state)

    async def _settle_checkpoint(self) -> None:
        """Waits until the last checkpoint is on disk; only then acknowledges the trees whose effect is in it."""
        if (pending := self._pending) is None:
            return
        waited = time.monotonic()
        with self._progress.waits.on(WaitKind.CHECKPOINT, "checkpoint: writing it to disk"):
            await pending.written
        self._pending = None
        self._checkpoint_seconds += time.monotonic() - waited
        self._parts.metrics.checkpoint_seconds.observe(time.monotonic() - pending.started)
        try:
            await self._parts.intake.acknowledge(pending.settled)
        except Unavailable as error:
            # the next checkpoint does; after a crash they are delivered again and counted as duplicates
            log.warning("acknowledgement_postponed", trees=len(pending.settled.trees), error=str(error))

    async def _finish(self) -> None:
        """The run is done, its last version published: evaluates, saves the policy, writes the summary."""
        if self._config.held_out and not self._progress.evaluation:
            await self._checkpoint()  # so that a restarted learner goes on with the evaluation
        await self._deliver()
        await self._evaluate(of_all=True)
        await self._checkpoint()
        await self._settle_checkpoint()
        with self._progress.waits.on(WaitKind.EXPORT, "export of the trained policy"):
            await self._in_torch_thread(self._parts.ranks.save_for_serving, self._config.run_dir / "policy")
            if self._config.lora is not None:
                await self._in_torch_thread(self._parts.ranks.save_adapters, self._config.run_dir / "adapter")
        try:
            await self._parts.streams.clear()
        except Unavailable as error:
            log.warning("streams_not_cleared", error=str(error))
        result = summary(self._config, self._progress.saved)
        self._parts.metrics_log.finish(result)
        self._progress.state, self._progress.warning = RunState.FINISHED, result.warning
        if result.warning:
            log.warning("run_came_to_nothing", reason=result.warning)
        log.info("run_finished", **result.model_dump())

    async def _end_early(self) -> None:
        self._raise_end()
        await self._checkpoint()
        await self._settle_checkpoint()
        with (
            suppress(TimeoutError),
            self._progress.waits.on(WaitKind.PUBLISH, "replicas take the last weights", unit="replicas") as wait,
        ):
            async with asyncio.timeout(self._config.publish_seconds):
                await self._parts.publisher.delivered(wait)
        self._raise_end()
        self._progress.state = RunState.STOPPED
        log.info("run_stopped", step=self._progress.step)

    def _raise_end(self) -> None:
        if self._end is not None:
            raise self._end

    def _require_lease(self) -> None:
        if self._end is not None:
            raise Stopped

    async def _in_torch_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.torch_thread, work, *arguments)

    async def _retry(self, work: Callable[[], Awaitable[T]], event: str = "waiting_for_redis") -> T:
        """Repeats `work` until what it needs answers, or the run is stopped. `work` must be safe to do twice."""
        kind, what, remedy = _WAITS[event]
        with self._progress.waits.on(kind, what, remedy=remedy):
            while True:
                try:
                    return await work()
                except Unavailable as error:
                    self._progress.message = str(error)
                    self._parts.metrics.stream_failures.inc()
                    log.warning(event, error=str(error))
                await self._unless_stopped(asyncio.sleep(_RETRY_SECONDS))
                self._progress.message = ""

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`; a stop cancels it and raises Stopped."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Stopped
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)


def _describe_write(error: OSError, run_dir: Path) -> Unavailable:
    """Services that cannot be reached are no OSError: it comes of the run's files."""
    if not run_dir.exists():
        return Unavailable(f"cannot write the run's files: {error}; {run_dir} is gone: restore it, or begin a new run")
    free = shutil.disk_usage(run_dir).free >> 20
    return Unavailable(
        f"cannot write the run's files: {error} ({free} MiB are free in {run_dir}); make room, and start the learner "
        "again: it resumes from its last checkpoint"
    )


def _result_of(update: Update) -> StepResult:
    if update.applied:
        return StepResult.UPDATED
    return StepResult.REFUSED if update.refused else StepResult.NO_SIGNAL
