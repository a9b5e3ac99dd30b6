"""The learning rate as a function of how far the run is."""

import math

from services.learner.config import OptimizerConfig, Schedule


def learning_rate(config: OptimizerConfig, step: int, progress: float) -> float:
    """Of the step after `step` others. `progress` in [0, 1] is the share of the run behind it, by whatever ends it."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.lr * warmup * _decay(config.schedule, min(1.0, progress))


def _decay(schedule: Schedule, progress: float) -> float:
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.COSINE:
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case Schedule.LINEAR:
            return 1.0 - progress
