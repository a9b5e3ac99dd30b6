"""What the embedded engine counts; the rollout's metrics read it."""

from dataclasses import dataclass


@dataclass(slots=True)
class EngineCounters:
    """Totals since the start, and two gauges: `rows_in_flight` and `waiting`.

    A request's tokens are `cached` (copied from the prefix cache) or `prefilled` (computed before the first token);
    `recomputed` ones belong to rows that outlived a weight swap.
    """

    generated_tokens: int = 0
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    evicted_tokens: int = 0
    recomputed_tokens: int = 0
    finished_requests: int = 0
    cancelled_requests: int = 0
    swaps: int = 0
    steps: int = 0
    failed_steps: int = 0
    step_seconds: float = 0.0
    rows_in_flight: int = 0
    waiting: int = 0
