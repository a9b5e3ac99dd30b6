"""Every outcome of a procedure of chance, with its probability, by running it once for each."""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


class Chance(random.Random):
    """Takes the outcomes of a script, one after the other, and the first possible one beyond its end."""

    def __init__(self, script: tuple[int, ...] = ()) -> None:
        super().__init__(0)
        self.script = script
        self.taken: list[int] = []
        self.num_possible: list[int] = []
        self.probability = 1.0

    def __new__(cls, script: tuple[int, ...] = ()) -> "Chance":
        return super().__new__(cls, 0)

    def pick(self, weights: Sequence[float]) -> int:
        nth = len(self.taken)
        outcome = self.script[nth] if nth < len(self.script) else 0
        self.taken.append(outcome)
        self.num_possible.append(len(weights))
        self.probability *= weights[outcome] / sum(weights)
        return outcome

    def _randbelow(self, n: int) -> int:  # shuffle, sample, choice and randrange are made of
        return self.pick([1.0] * n) if n > 1 else 0

    def choices(self, population: Any, weights: Any = None, *, cum_weights: Any = None, k: int = 1) -> list[Any]:
        assert weights is not None
        return [population[self.pick(weights)] for _ in range(k)]


def every_outcome(run: Callable[[Chance], T]) -> Iterator[tuple[float, T]]:
    """What the procedure returns, for every outcome of the chance that it is given."""
    script: tuple[int, ...] = ()
    while True:
        chance = Chance(script)
        result = run(chance)
        yield chance.probability, result
        last = next(
            (at for at in reversed(range(len(chance.taken))) if chance.taken[at] + 1 < chance.num_possible[at]), -1
        )
        if last < 0:
            return
        script = (*chance.taken[:last], chance.taken[last] + 1)


def law(run: Callable[[Chance], H]) -> dict[H, float]:
    """The distribution of what a procedure returns."""
    probabilities: dict[H, float] = defaultdict(float)
    for probability, result in every_outcome(run):
        probabilities[result] += probability
    return dict(probabilities)
