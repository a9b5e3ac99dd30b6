"""Worked answers with a beginner's mistakes, for the supervised warm start."""

import random
from dataclasses import asdict, dataclass

from services.demo.expressions import Expression, invalid_redexes, reduce_at, render, result_at, valid_redexes

BLANK_LINE = "\n\n"


@dataclass(frozen=True, slots=True)
class Noise:
    """How often a demonstration errs, as probabilities.

    Per answer, `naive` works from left to right whatever the precedence. Per operation, `sloppy` chooses an invalid
    redex if there is one, and `slip` writes a random digit. Per step, `skip` carries out two operations at once.
    """

    naive: float = 0.35
    sloppy: float = 0.08
    slip: float = 0.05
    skip: float = 0.05

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is a probability: {value}")


def demonstrate(expression: Expression, modulus: int, noise: Noise, rng: random.Random) -> str:
    """One answer: each step is the reduced expression and a blank line; the boxed digit comes last."""
    is_naive = rng.random() < noise.naive
    steps = []
    while expression.operators:
        skips = rng.random() < noise.skip and len(expression.operators) > 1
        for _ in range(2 if skips else 1):
            expression = _operate(expression, modulus, noise, is_naive, rng)
        steps.append(render(expression) + BLANK_LINE)
    return "".join(steps) + box(render(expression))


def box(digit: str) -> str:
    """The final answer in the form that the verifier reads."""
    return f"\\boxed{{{digit}}}"


def _operate(expression: Expression, modulus: int, noise: Noise, is_naive: bool, rng: random.Random) -> Expression:
    position = 0 if is_naive else _choose(expression, noise.sloppy, rng)
    slips = rng.random() < noise.slip
    result = rng.randrange(modulus) if slips else result_at(expression, position, modulus)
    return reduce_at(expression, position, result)


def _choose(expression: Expression, sloppy: float, rng: random.Random) -> int:
    invalid = invalid_redexes(expression)
    if invalid and rng.random() < sloppy:
        return rng.choice(invalid)
    return rng.choice(valid_redexes(expression))
