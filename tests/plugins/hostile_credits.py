"""Credits and a value estimator of a user's own, and what may be wrong with them; without torch, to be read fast."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.tree.credit import Advantages, Credit, SideInformation
from shared.tree.node import Tree
from shared.tree.values import ValueEstimator

NOTHING = SideInformation()


def loop(tree: Tree) -> Any:
    while True:
        time.sleep(0.001)


BAD: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "raises": (lambda tree: 1 / 0, "ZeroDivisionError: division by zero"),
    "loops": (loop, "it took longer than 4 s"),
    "nothing": (lambda tree: None, "a credit gives Advantages(of_nodes), not None"),
    "too few": (lambda tree: Advantages((0.0,)), "1 advantages for"),
    "NaN": (lambda tree: Advantages((math.nan,) * len(tree.nodes)), "NaN or infinite"),
    "text": (lambda tree: Advantages(("much",) * len(tree.nodes)), "could not convert string to float"),  # type: ignore[arg-type]
    "paths": (lambda tree: Advantages((0.0,) * len(tree.nodes), of_paths=((0.0,),)), "a credit gives one"),
    "parts": (lambda tree: Advantages((0.0,) * len(tree.nodes), (0.0,)), "1 global parts for"),
}


@dataclass(frozen=True)
class Own(Credit):
    """A trajectory's reward, at all of its nodes; or what is wrong in a way."""

    how: str = ""

    def advantages(self, tree: Tree, side: SideInformation = NOTHING) -> Advantages:
        return BAD[self.how][0](tree) if self.how in BAD else Advantages.of_trajectories(tree, tree.reward_of_draw)


@dataclass(frozen=True)
class Weightless(Own):
    def weights(self, tree: Tree, advantages: Advantages) -> list[float]:
        return [-1.0] * len(tree.nodes) if self.how == "negative" else [1.0]


@dataclass(frozen=True)
class Scaled(Own):
    compares_steps = True

    def step_scale(self, rewards: Any, advantages: Any) -> tuple[float, float]:
        return 1.0, 0.0 if self.how else 4.0


@dataclass(frozen=True)
class Curious(Own):
    def has_signal(self, rewards: Any) -> bool:
        return bool(1 / 0) if self.how else True


@dataclass(frozen=True)
class Broken(ValueEstimator):
    """It raises, or loops."""

    how: str = "raises"

    def values(self, tree: Tree) -> Any:
        return BAD[self.how][0](tree)


@dataclass(frozen=True)
class Zeros(ValueEstimator):
    def values(self, tree: Tree) -> list[float]:
        return [0.0] * 2
