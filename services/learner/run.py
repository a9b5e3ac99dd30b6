"""The life of a run: from its lease, step by step, to its summary."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from services.learner.config import LearnerConfig
from services.learner.ledger import End, Ledger
from services.learner.metrics import EvaluationResult, LearnerMetrics, StepResult
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Arrival, Intake
from services.learner.ranks import Crew
from services.learner.record.checkpoint import CheckpointStore
from services.learner.record.figures import figures_of, step_figures, summary
from services.learner.record.metrics_log import Journal
from services.learner.record.progress import Course
from services.learner.record.state import Books, LearnerState
from services.learner.record.tree_samples import TreeShelf
from services.learner.serving.evaluation import Evaluator
from services.learner.serving.publisher import Publisher
from services.learner.training.schedule import learning_rate
from services.learner.training.update import Update
from shared.errors import Conflict, Unavailable
from shared.protocol.figures import StepFigures
from shared.protocol.status import RunState, RunStatus
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.runtime.logs import event_logger
from shared.streams import RunStreams, StreamsFull
from shared.tree.advantage import has_signal
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
T = TypeVar("T")
_RETRY_SECONDS = 0.5
_GAP_TREES = 32
"""How many of an evaluation's problems the learner reads again, to compare its log-probabilities with the engine's."""


class Stopped(Exception):
    """The run was asked to stop, or lost its lease."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of."""

    streams: RunStreams
    crew: Crew
    ledger: Ledger
    feed: Feed
    intake: Intake
    publisher: Publisher
    evaluator: Evaluator
    checkpoints: CheckpointStore
    shelf: TreeShelf
    journal: Journal
    metrics: LearnerMetrics
    worker: ThreadPoolExecutor
    """The one thread in which torch works, so that the event loop goes on answering."""


class Run:
    """Feeds, learns, publishes, evaluates and checkpoints until its course is done or it is stopped.

    One thing happens at a time: the books and the policy are changed by this sequence alone.
    """

    def __init__(self, config: LearnerConfig, course: Course, parts: Parts, owner: str) -> None:
        self._config = config
        self._course = course
        self._parts = parts
        self._owner = owner
        self._stop = asyncio.Event()
        self._is_wanted = True
        self._lost: Conflict | None = None
        self._state = RunState.STARTING
        self._message = ""
        self._figures = StepFigures()
        self._published: WeightVersion | None = None
        self._tick = time.monotonic()

    def stop(self) -> None:
        """Somebody asks for the run's end: after the step in progress, with a checkpoint."""
        self._is_wanted = False
        self.interrupt()

    def interrupt(self) -> None:
        """Ends this life of the run as a stop does; another is to go on with it."""
        if not self._stop.is_set():
            log.info("stop_requested", step=self._course.progress.step)
            self._state = RunState.STOPPING
            self._stop.set()

    def lose(self, error: Conflict) -> None:
        """Another learner has the run now: nothing of it may be changed any more."""
        self._lost = error
        self._stop.set()

    @property
    def has_published(self) -> bool:
        """Whether replicas can have the policy from this life of the run."""
        return self._published is not None

    @property
    def is_over(self) -> bool:
        """Whether no other life is to go on with it: it has finished, or was asked to stop."""
        return self._state is RunState.FINISHED or not self._is_wanted

    @property
    def was_finished(self) -> bool:
        """Whether an earlier life has brought it to its end, and nothing is left to do."""
        return self._parts.journal.is_closed and self._course.is_done

    def status(self) -> RunStatus:
        """Where the run is."""
        progress = self._course.progress
        return RunStatus(
            run=self._config.run,
            state=self._state,
            version=self._published,
            step=progress.step,
            total_steps=self._config.total_steps or 0,
            seconds=progress.totals.wall_seconds + time.monotonic() - self._tick,
            eta_seconds=self._course.eta_seconds,
            figures=self._figures,
            accounts=self._parts.ledger.accounts,
            evaluations=progress.evaluations,
            message=self._message,
            time=time.time(),
        )

    async def take(self) -> None:
        """Takes the run's lease, waiting for Redis. Conflict while another learner holds it."""
        at_least = self._course.version.generation + 1
        generation = await self._patiently(lambda: self._parts.streams.lease.acquire(self._owner, at_least))
        self._course.begin(generation)
        log.info("run_taken", run=self._config.run, generation=generation, step=self._course.progress.step)

    async def live(self, *, is_new: bool) -> None:
        """From the lease, which is held, to the end of the run or of this life of it."""
        try:
            await self._begin(is_new)
            while not self._course.is_done:
                await self._step()
            await self._end()
        except Stopped:
            await self._halt()
        except Exception as error:
            self._state, self._message = RunState.FAILED, str(error)
            raise

    async def _begin(self, is_new: bool) -> None:
        streams, parts, step = self._parts.streams, self._parts, self._course.progress.step
        parts.journal.resume(step)
        if is_new:
            # what an earlier run of this name left on the streams would be taken for this one's
            await self._patiently(streams.forget)
        await self._patiently(streams.board.clear_stop)
        if not is_new:
            await self._patiently(parts.feed.catch_up)
            await self._patiently(parts.intake.recover)
        await self._publish()
        await self._evaluate_if_due()
        if step == 0:
            await self._checkpoint()

    async def _step(self) -> None:
        """One step of the algorithm, and what is due after it."""
        config, course, parts = self._config, self._course, self._parts
        self._state = RunState.TRAINING
        began = time.monotonic()
        arrivals = await self._batch()
        arrived = time.monotonic()
        update, figures, usage = await self._in_worker(self._learn, [arrival.tree for arrival in arrivals])
        parts.intake.settle((arrival, _end_of(arrival, config)) for arrival in arrivals)
        updated = time.monotonic()
        course.advance(figures, usage, is_updated=update.applied > 0, seconds=updated - began)
        await self._publish_if_due()
        self._show(
            step_figures(course.progress.step, figures, usage, update).model_copy(
                update={
                    "staleness": sum(arrival.staleness for arrival in arrivals) / len(arrivals),
                    "intake_seconds": arrived - began,
                    "update_seconds": updated - arrived,
                    "publish_seconds": time.monotonic() - updated,
                    "tokens_per_second": usage.generated_tokens / (time.monotonic() - began),
                }
            ),
            update,
        )
        await self._evaluate_if_due()
        if course.progress.step % config.checkpoint_every == 0:
            await self._checkpoint()

    async def _batch(self) -> tuple[Arrival, ...]:
        """The next batch. Where trees that were used fill Redis, a checkpoint lets go of them."""
        while True:
            try:
                batch = self._parts.intake.batch(self._config.batch_size, self._course.version)
                return await self._unless_stopped(batch)
            except StreamsFull:
                await self._checkpoint()

    def _learn(self, trees: Sequence[ScoredTree]) -> tuple[Update, TreeFigures, TreeUsage]:
        """In the worker: an update on the trees with a signal, the figures of all."""
        progress = self._course.progress
        lr = learning_rate(self._config.optimizer, progress.step, self._course.share_done)
        wanted = [tree for tree in trees if has_signal(tree.rewards, self._config.advantage)]
        update = self._parts.crew.step(wanted, progress.version, lr, f"{self._config.seed} {progress.step}")
        self._parts.shelf.put(trees, progress.totals.figures.trees)
        return update, *figures_of(trees)

    def _show(self, figures: StepFigures, update: Update) -> None:
        self._figures = figures
        result = _result_of(update)
        self._parts.metrics.record_step(figures, result)
        self._parts.journal.add(figures)
        log.info("step", **figures.model_dump(exclude_none=True), result=result, version=str(self._course.version))

    async def _publish_if_due(self) -> None:
        behind = self._course.version.number - (self._published.number if self._published else -1)
        if behind >= self._config.publish_every or (behind and self._course.is_done):
            await self._publish()

    async def _publish(self) -> None:
        """A snapshot of the policy, brought to the replicas; a slow one holds training up to its deadline only."""
        self._require_lease()
        version = self._course.version
        snapshot = await self._in_worker(self._parts.publisher.write, self._parts.crew, version)
        self._published = version
        self._parts.metrics.version_number.set(version.number)
        self._parts.metrics.generation.set(version.generation)
        await self._parts.publisher.push(snapshot)

    async def _evaluate_if_due(self) -> None:
        """Before the first step, and after every so many; what follows the last one is the end's."""
        every, step = self._config.evaluation.every, self._course.progress.step
        if not self._course.is_done and (step == 0 or (every and step % every == 0)):
            await self._evaluate()

    async def _evaluate(self) -> None:
        """Held-out accuracy of the policy as it is now, once; an evaluation that fails is left out, and said so."""
        step, version = self._course.progress.step, self._course.version
        if self._course.progress.evaluation_at(step) is not None:
            return
        if self._published != version:
            await self._publish()
        before, self._state = self._state, RunState.EVALUATING
        try:
            probe = await self._unless_stopped(self._parts.evaluator.evaluate(step, version))
        except Unavailable as error:
            self._parts.metrics.evaluations.labels(EvaluationResult.FAILED).inc()
            log.error("evaluation_failed", step=step, error=str(error))
            return
        finally:
            self._state = before
        if probe is not None:
            gap = await self._in_worker(self._parts.crew.engine_gap, probe.trees[:_GAP_TREES], version)
            evaluation = probe.evaluation.model_copy(update={"engine_gap": gap})
            self._course.evaluated(evaluation)
            self._parts.metrics.record_evaluation(evaluation)
            self._parts.journal.add(evaluation)
            log.info("evaluated", **evaluation.model_dump(exclude={"version"}), version=str(version))

    async def _checkpoint(self) -> None:
        """Writes the run down; then, and only then, lets go of the trees whose effect is in it."""
        self._require_lease()
        now = time.monotonic()
        self._course.pass_time(now - self._tick)
        self._tick = now
        settled = self._parts.intake.settled
        state = LearnerState(progress=self._course.progress, books=Books.of(self._parts.ledger))
        await self._in_worker(self._parts.checkpoints.save, self._parts.crew, state)
        self._parts.metrics.checkpoint_seconds.observe(time.monotonic() - now)
        try:
            await self._parts.intake.acknowledge(settled)
        except Unavailable as error:
            # with the next one; after a crash they are delivered again and known as duplicates
            log.warning("acknowledgement_postponed", trees=len(settled.trees), error=str(error))

    async def _end(self) -> None:
        """The run is done: its accuracy, its policy, its summary."""
        if self._published != self._course.version:
            await self._publish()
        await self._evaluate()
        await self._checkpoint()
        await self._in_worker(self._parts.crew.save_to_serve, self._config.run_dir / "policy")
        try:
            await self._parts.streams.clear()
        except Unavailable as error:
            log.warning("streams_not_cleared", error=str(error))
        self._parts.journal.close(summary(self._config, self._course.progress))
        self._state = RunState.FINISHED
        log.info("run_finished", **summary(self._config, self._course.progress).model_dump())

    async def _halt(self) -> None:
        if self._lost is not None:
            self._state, self._message = RunState.FAILED, str(self._lost)
            raise self._lost
        await self._checkpoint()
        self._state = RunState.STOPPED
        log.info("run_stopped", step=self._course.progress.step)

    def _require_lease(self) -> None:
        if self._lost is not None:
            raise Stopped

    async def _in_worker(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.worker, work, *arguments)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does `work`, which may be done twice, as soon as Redis is there; waits for it until stopped."""
        while True:
            try:
                return await work()
            except Unavailable as error:
                self._message = str(error)
                self._parts.metrics.stream_failures.inc()
                log.warning("waiting_for_redis", error=str(error))
            await self._unless_stopped(asyncio.sleep(_RETRY_SECONDS))
            self._message = ""

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`, or raises Stopped and cancels it."""
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


def _result_of(update: Update) -> StepResult:
    if update.applied:
        return StepResult.UPDATED
    return StepResult.REFUSED if update.refused else StepResult.NO_SIGNAL


def _end_of(arrival: Arrival, config: LearnerConfig) -> End:
    return End.USED if has_signal(arrival.tree.rewards, config.advantage) else End.SKIPPED
