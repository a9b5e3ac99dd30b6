"""Evaluations of given rewards, as the learner measures them."""

from collections.abc import Mapping, Sequence

from services.learner.held_out.measure import average_sets, measure_set
from services.learner.held_out.results import ProblemResult
from services.learner.held_out_config import EvaluationConfig, HeldOutSet, SetPlan, plan_sets
from shared.protocol.status import Evaluation
from shared.protocol.task import Growth
from shared.tree.draw import WeightVersion
from shared.tree.samplers import IndependentSampler

GROWTH = Growth(sampler=IndependentSampler(initial_draws=1))


def set_plan(name: str = "held_out", **settings: object) -> SetPlan:
    """How a set of this name is measured."""
    held_out = HeldOutSet.model_validate({"source": f"{name}.jsonl", **settings})
    (plan,) = plan_sets({name: held_out}, EvaluationConfig(), GROWTH)
    return plan


def result(
    number: int,
    rewards: Sequence[float | None],
    answers: Sequence[str | None] | None = None,
    finish: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
) -> ProblemResult:
    """The answers to one problem, of kind code unless `answers` says what they state. Equal texts are one vote."""
    texts = tuple(answers or [None] * len(rewards))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return ProblemResult(
        id=str(number),
        problem=f"hash-{number}",
        rewards=tuple(rewards),
        answers=texts,
        votes=tuple(
            numbers[text] if text and reward is not None else None for text, reward in zip(texts, rewards, strict=True)
        ),
        tokens=tuple(tokens or [2] * len(rewards)),
        finish=tuple(finish or ["stop"] * len(rewards)),
    )


def make_evaluation(
    rewards_of_set: Mapping[str, Sequence[Sequence[float]]], step: int, version: WeightVersion, k: int
) -> Evaluation:
    """Of the rewards of each problem's answers, by the name of the set."""
    measured = [
        measure_set(set_plan(name, k=k), [result(number, one) for number, one in enumerate(rewards)])
        for name, rewards in rewards_of_set.items()
    ]
    return average_sets([one for one in measured if one], step, version)
