"""The learning rate over a run."""

import pytest

from services.learner.config import OptimizerConfig, Schedule


def test_it_warms_up_to_its_height() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=3)
    assert [config.learning_rate(step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(
    ("schedule", "heights"),
    [
        (Schedule.CONSTANT, [1.0, 1.0, 1.0]),
        (Schedule.COSINE, [1.0, 0.5, 0.0]),
        (Schedule.LINEAR, [1.0, 0.5, 0.0]),
    ],
)
def test_it_falls_as_its_schedule_says(schedule: Schedule, heights: list[float]) -> None:
    config = OptimizerConfig(lr=1.0, schedule=schedule)
    assert [config.learning_rate(7, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(heights)
    assert config.learning_rate(7, 1.3) == pytest.approx(heights[-1])
