"""Where a run is: what it has done, what is left, and what it is doing now."""

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from services.learner.config import LearnerConfig
from services.learner.record.state import SavedProgress
from services.learner.waits import Waits
from shared.protocol.figures import StepFigures
from shared.protocol.replica import ReplicaInfo
from shared.protocol.status import Accounts, Evaluation, RunState, RunStatus
from shared.protocol.tree import TreeUsage
from shared.streams import Depth
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import WeightVersion

_MAX_ORIGINS = 64
"""Trees of earlier generations are long stale."""


class Progress:
    """A run's progress towards the ends that its configuration sets. A checkpoint keeps `saved`; state, message,
    figures and published version begin again with every process."""

    def __init__(self, config: LearnerConfig, saved: SavedProgress) -> None:
        self._config = config
        self._saved = saved
        self._started = time.monotonic()
        self.state = RunState.STARTING
        self.waits = Waits()
        self.message = ""
        self.warning = ""
        """What is wrong with the last steps; shown where there is no message."""
        self.note = ""
        """What is to be said of the whole run; shown where there is nothing else to say."""
        self.figures = StepFigures()
        """Of the last step."""
        self.stepped_at = self._started
        """When this process took its last step, or began (time.monotonic)."""
        self.published: WeightVersion | None = None
        """The last version that replicas can get from this process."""

    @property
    def saved(self) -> SavedProgress:
        """What a checkpoint keeps, as of now."""
        totals = self._saved.totals
        wall_seconds = totals.wall_seconds + time.monotonic() - self._started
        return self._saved.model_copy(update={"totals": totals.model_copy(update={"wall_seconds": wall_seconds})})

    @property
    def step(self) -> int:
        return self._saved.step

    @property
    def version(self) -> WeightVersion:
        """The policy as it is now."""
        return self._saved.version

    @property
    def origins(self) -> tuple[str, ...]:
        return self._saved.origins

    @property
    def share_done(self) -> float:
        """In [0, 1], of steps or tokens, whichever is nearer its end."""
        config, tokens = self._config, self._saved.totals.usage.generated_tokens
        shares = (
            self.step / config.total_steps if config.total_steps else 0.0,
            tokens / config.max_generated_tokens if config.max_generated_tokens else 0.0,
        )
        return min(1.0, max(shares))

    @property
    def is_done(self) -> bool:
        return self.share_done >= 1.0

    @property
    def tokens_left(self) -> float:
        """How many tokens may still be generated; infinite without a bound."""
        return (self._config.max_generated_tokens or math.inf) - self._saved.totals.usage.generated_tokens

    def capacity(self, lag: int = 0) -> int:
        """How many tasks may be outstanding: no more than the remaining steps can use, and a batch less for each update
        that replicas lag behind the published weights, which their trees begin with; but a batch at least."""
        config = self._config
        most = max(config.batch_size, config.max_outstanding - lag * config.batch_size)
        if config.total_steps is None:
            return most
        return min(most, (config.total_steps - self.step) * config.batch_size)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the pace so far; None before the first step."""
        share = self.share_done
        return self._saved.totals.training_seconds * (1.0 - share) / share if share else None

    @property
    def evaluation(self) -> Evaluation | None:
        """That of the present step."""
        return self._saved.evaluation_at(self.step)

    @property
    def evaluated_steps(self) -> frozenset[int]:
        return frozenset(one.step for one in self._saved.evaluations)

    def note_published(self, version: WeightVersion) -> None:
        """From now on replicas can get it."""
        self.published = version

    def begin_generation(self, generation: int, origin: str) -> None:
        """Continues the policy's versions under a new generation."""
        origins = (*self._saved.origins, origin)[-_MAX_ORIGINS:]
        self._change(version=WeightVersion(generation, self.version.number, origin), origins=origins)

    def add_step(self, figures: TreeFigures, usage: TreeUsage, *, is_updated: bool, seconds: float) -> None:
        """Counts a step that took `seconds`; a changed policy is a new version."""
        self.stepped_at = time.monotonic()
        totals = self._saved.totals.plus(figures, usage)
        self._change(
            step=self.step + 1,
            version=replace(self.version, number=self.version.number + is_updated),
            totals=totals.model_copy(update={"training_seconds": totals.training_seconds + seconds}),
        )

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """In place of one of the same step."""
        others = (one for one in self._saved.evaluations if one.step != evaluation.step)
        self._change(evaluations=(*others, evaluation))

    def status(self, accounts: Accounts, replicas: Iterable[ReplicaInfo], tasks: Depth, trees: Depth) -> RunStatus:
        """The run's status, with what was last seen of its replicas and queues."""
        saved = self.saved
        return RunStatus(
            run=self._config.run,
            state=self.state,
            version=self.published,
            max_staleness=self._config.max_staleness,
            step=saved.step,
            total_steps=self._config.total_steps or 0,
            seconds=saved.totals.wall_seconds,
            eta_seconds=self.eta_seconds,
            figures=self.figures,
            accounts=accounts,
            evaluations=saved.evaluations,
            replicas=tuple(replicas),
            queued_tasks=tasks.queued,
            pending_tasks=tasks.pending,
            queued_trees=trees.queued,
            message=self.message,
            time=time.time(),
        )

    def _change(self, **changes: object) -> None:
        self._saved = self._saved.model_copy(update=changes)
