"""How far a run is: what it has done, what is left, what it may have in flight."""

from services.learner.config import LearnerConfig
from services.learner.record.state import RunProgress
from shared.protocol.status import Evaluation
from shared.protocol.tree import TreeUsage
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import WeightVersion


class Course:
    """The progress of a run against its configuration's ends."""

    def __init__(self, config: LearnerConfig, progress: RunProgress) -> None:
        self._config = config
        self.progress = progress

    @property
    def version(self) -> WeightVersion:
        """The policy as it is now."""
        return self.progress.version

    @property
    def share_done(self) -> float:
        """In [0, 1], by whichever end is nearer."""
        config, progress = self._config, self.progress
        shares = (
            progress.step / config.total_steps if config.total_steps else 0.0,
            self.generated_tokens / config.max_generated_tokens if config.max_generated_tokens else 0.0,
        )
        return min(1.0, max(shares))

    @property
    def is_done(self) -> bool:
        """Whether the last step is behind it."""
        return self.share_done >= 1.0

    @property
    def generated_tokens(self) -> int:
        """What the engines have sampled for its steps."""
        return self.progress.totals.usage.generated_tokens

    @property
    def max_outstanding(self) -> int:
        """Tasks that may be in flight: no more than the steps to come can take."""
        config = self._config
        if config.total_steps is None:
            return config.max_outstanding
        return min(config.max_outstanding, (config.total_steps - self.progress.step) * config.batch_size)

    @property
    def eta_seconds(self) -> float | None:
        """What is left, at the pace so far; None before there is one."""
        share = self.share_done
        return self.progress.totals.training_seconds * (1.0 - share) / share if share else None

    def begin(self, generation: int) -> None:
        """The policy goes on under a new generation."""
        self._update(version=WeightVersion(generation, self.version.number))

    def advance(self, figures: TreeFigures, usage: TreeUsage, *, is_updated: bool, seconds: float) -> None:
        """One more step, after `seconds` of training."""
        version = self.version
        totals = self.progress.totals.plus(figures, usage)
        self._update(
            step=self.progress.step + 1,
            version=WeightVersion(version.generation, version.number + is_updated),
            totals=totals.model_copy(update={"training_seconds": totals.training_seconds + seconds}),
        )

    def pass_time(self, seconds: float) -> None:
        """Counts the time that the run has taken, whatever for."""
        totals = self.progress.totals
        self._update(totals=totals.model_copy(update={"wall_seconds": totals.wall_seconds + seconds}))

    def evaluated(self, evaluation: Evaluation) -> None:
        """One more evaluation."""
        self._update(evaluations=(*self.progress.evaluations, evaluation))

    def _update(self, **changes: object) -> None:
        self.progress = self.progress.model_copy(update=changes)
