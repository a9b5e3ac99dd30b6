"""Watches what the steps of a run come to, and says so where they come to nothing."""

from services.learner.metrics import StepResult
from shared.errors import InvalidInput
from shared.protocol.figures import StepFigures

_MANY_IDLE = 5
_MANY_TRUNCATED = 0.2


class StepWatch:
    """Counts steps in a row that left the policy as it was. `max_idle` of them end the run; 0: none do."""

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._idle: list[StepResult] = []
        self._last = StepFigures()

    def add(self, figures: StepFigures, result: StepResult) -> None:
        self._last = figures
        self._idle = [] if result is StepResult.UPDATED else [*self._idle, result]

    def require_progress(self) -> None:
        """InvalidInput after too many idle steps."""
        if self._max_idle and len(self._idle) >= self._max_idle:
            raise InvalidInput(f"{self._describe_idle()}; the run ends after learner.max_idle_steps={self._max_idle}")

    @property
    def warning(self) -> str:
        """What is wrong with the last steps; empty if nothing is."""
        parts = []
        if len(self._idle) >= _MANY_IDLE:
            parts.append(self._describe_idle())
        share = self._last.truncated_share or 0.0
        if share > _MANY_TRUNCATED:
            parts.append(
                f"growth.max_tokens cuts {share:.0%} of the answers: raise it; they count 0 unless "
                "growth.judge_truncated=true has the verifier judge them"
            )
        return "; ".join(parts)

    def _describe_idle(self) -> str:
        refused, steps = self._idle.count(StepResult.REFUSED), len(self._idle)
        reward = self._last.avg_rate
        return (
            f"the last {steps} steps changed nothing: {refused} had gradients that are not finite, {steps - refused} "
            f"no tree whose rewards differ (mean reward {'unknown' if reward is None else f'{reward:.2f}'})"
        )


def warn_of_run(steps: int, updates: int, truncated_share: float | None) -> str:
    """What is wrong with a whole run; empty if nothing is."""
    share, parts = truncated_share or 0.0, []
    if steps and not updates:
        parts.append(f"none of {steps} steps changed the policy: it is the one that the run began with")
    if share > _MANY_TRUNCATED:
        parts.append(f"growth.max_tokens cut {share:.0%} of the answers")
    return "; ".join(parts)
