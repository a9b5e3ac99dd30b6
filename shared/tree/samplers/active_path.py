"""The sampler of IIB-LPO: each first answer has one active path, which is forked where it is least sure."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from shared.tree.draw import Draw
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, Branch, Sampler, at_least
from shared.tree.samplers.tokens import SCORED_BY, TokenScore, first_answer, forkable, mean_score, token_scores


@dataclass(frozen=True, slots=True)
class ActivePathSampler(Sampler):
    """Each first answer begins as the active path of its tree. In each of some rounds the active path is drawn once
    more, after its own token of the highest score; the new path is the active one from then on if the mean score of
    its new tokens is higher (S-3). The first of a path's own tokens is never forked after.
    """

    initial_draws: Annotated[int, INITIAL_DRAWS] = 2
    rounds: Annotated[int, "Forks of each first answer's active path, one in each round"] = 3
    token_score: Annotated[TokenScore, SCORED_BY] = TokenScore.ENTROPY

    def __post_init__(self) -> None:
        at_least(0, rounds=self.rounds)
        at_least(1, initial_draws=self.initial_draws)

    @property
    def asks_entropies(self) -> bool:
        return self.token_score is TokenScore.ENTROPY

    @property
    def num_draws(self) -> int:
        return self.initial_draws * (1 + self.rounds)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        chosen = ((draw_id, self._cut(tree.draws[draw_id], rng)) for draw_id in self.active_paths(tree))
        return tuple(Branch(draw_id, cut, 1) for draw_id, cut in chosen if cut is not None)

    def active_paths(self, tree: Tree) -> Iterable[int]:
        """The draw of each first answer's active path, by the order of the draws. Draws without a verdict are passed
        over."""
        active: dict[int, tuple[float, int]] = {}
        for draw_id, draw in enumerate(tree.draws):
            if draw.counted_reward is not None:
                answer, mean = first_answer(tree.draws, draw_id), mean_score(draw, self.token_score)
                if answer not in active or mean > active[answer][0]:
                    active[answer] = (mean, draw_id)
        return [draw_id for _, draw_id in active.values()]

    def _cut(self, draw: Draw, rng: random.Random) -> int | None:
        """After its token of the highest score; None where it cannot be forked after its second token or later."""
        scores, is_own = token_scores(draw, self.token_score), draw.is_sampled
        kept = [(scores[kept - 1], rng.random(), kept) for kept in forkable(draw) if kept > 1 and is_own[kept - 1]]
        return draw.cut + max(kept)[-1] if kept else None
