"""The likelihood value Φ(s) of a step: how likely the gold answer is, were the answer given there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar


class LikelihoodForm(StrEnum):
    """Which Φ(s) (METHOD, V-Φ)."""

    JOINT = "joint"
    """exp of the sum of the gold answer's token log-probabilities: a probability."""
    GEOMETRIC = "geometric"
    """exp of their mean: does not fall with the answer's length."""


@dataclass(frozen=True, slots=True)
class LikelihoodSettings:
    """What is scored at the step ends of a tree's draws."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    opener: Annotated[str, "What is put behind a step before the gold answer"] = "\\boxed{"
    closer: Annotated[str, "What is scored with the gold answer, behind it: 1 is not 12; may be empty"] = "}"
    field: Annotated[str, "Which entry of the answer key is the gold answer, a text or a number"] = "gold"
    form: Annotated[LikelihoodForm, "Φ(s) as the gold answer's probability, or as its tokens' geometric mean"] = (
        LikelihoodForm.JOINT
    )

    def __post_init__(self) -> None:
        if not self.field:
            raise ValueError("field names an entry of the answer key, such as gold")


def likelihood(logprobs: Sequence[float], form: LikelihoodForm) -> float:
    """Φ(s) in [0, 1], of the log-probabilities of the gold answer's tokens."""
    total = sum(logprobs)
    return min(1.0, math.exp(total if form is LikelihoodForm.JOINT else total / len(logprobs)))
