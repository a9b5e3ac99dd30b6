"""The configuration: what it refuses, and what it derives."""

import pytest

from services.learner.config import OptimizerConfig, Schedule
from tests.learner.conftest import Configure


def test_the_learning_rate_warms_up_to_its_height() -> None:
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
def test_the_learning_rate_falls_as_its_schedule_says(schedule: Schedule, heights: list[float]) -> None:
    config = OptimizerConfig(lr=1.0, schedule=schedule)
    assert [config.learning_rate(7, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx(heights)
    assert config.learning_rate(7, 1.3) == pytest.approx(heights[-1])


PRIOR_TREE = {"kind": "ib", "score": {"values": {"kind": "prior", "source": "likelihood"}}}


def test_a_configuration_says_what_it_needs(configure: Configure) -> None:
    for changes, complaint in (
        ({"total_steps": None}, "say when the run ends"),
        ({"growth": {"sampler": "ib", "temperature": 0}}, "no distribution to learn from"),
        ({"growth": {"sampler": PRIOR_TREE}}, "sampler's values have source=likelihood.*growth.likelihood={}"),
        ({"advantage": {"values": "prior"}}, "credit's values or baseline have source=likelihood"),
        ({"objective": {"minibatches": 9}}, "exceed the 4 trees"),
        ({"publish_every": 3}, "publish at least every 2 updates"),
        ({"deterministic": True, "max_staleness": 1}, "deterministic needs max_staleness 0, and 1 is given"),
        ({"deterministic": True, "publish_every": 2}, "publish at least every 1 updates"),
        ({"advantage": "grop"}, "no credit is named 'grop'"),
        ({"objective": {"clip": 1}}, "Extra inputs"),
        ({"objective": {"ties": "refill"}, "advantage": {"ib_on_ties": True}}, "or objective.ties=drop"),
    ):
        with pytest.raises(ValueError, match=complaint):
            configure(**changes)
    assert configure(advantage={"kind": "grpo", "epsilon": 0.5}).advantage.epsilon == 0.5
    assert configure(max_staleness=2).max_outstanding == 12
    assert configure(max_staleness=2, publish_every=2).max_outstanding == 8
    assert configure(objective={"kl_coef": 0}).needs_reference is False
    growth = {"sampler": PRIOR_TREE, "likelihood": {}}
    scored = configure(growth=growth, advantage={"values": "prior"}, held_out={"easy": "easy.jsonl"})
    assert {plan.growth.likelihood for plan in scored.held_out_plans} == {
        None
    }  # nothing is scored for held-out accuracy


def test_what_has_no_signal_is_trained_on_where_the_run_says_so(configure: Configure) -> None:
    equal, mixed = (1.0, 1.0), (1.0, 0.0)
    for ties, trains_on_equal in (("drop", False), ("keep", True), ("refill", False)):
        config = configure(objective={"ties": ties})
        assert config.trains_on(mixed)
        assert config.trains_on(equal) is trains_on_equal
        assert not config.trains_on(())
    assert configure(advantage={"ib_on_ties": True}).trains_on(equal)


def test_a_deterministic_run_trains_on_present_weights_and_evaluates_one_problem_at_a_time(
    configure: Configure,
) -> None:
    config = configure(deterministic=True, evaluation={"problems_per_replica": 8})
    assert config.max_outstanding == config.batch_size
    assert config.evaluation_plan.problems_per_replica == 1
    assert configure(evaluation={"problems_per_replica": 8}).evaluation_plan.problems_per_replica == 8
