"""EPTree of TreeRL: branches before the tokens that the policy was least sure of."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

from shared.tree.draw import Draw
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, ROUNDS, Branch, Sampler, at_least
from shared.tree.vocabulary import ids_containing


@dataclass(frozen=True, slots=True)
class EntropySampler(Sampler):
    """EPTree(M, N, L, T): in each of L rounds, T new draws start before each of the N tokens with the highest −log p
    in the tree of each of the M initial answers.

    Never from before the first token of a draw, nor after a token whose text contains one of `closing_words`, in any
    case. Which tokens those are is the vocabulary's to say: `for_vocabulary` gives a sampler its `closing_ids`.
    """

    initial_draws: Annotated[int, INITIAL_DRAWS] = 6
    forks_per_answer: Annotated[int, "N: tokens per initial answer before which it is continued again"] = 2
    rounds: Annotated[int, ROUNDS] = 1
    draws_per_fork: Annotated[int, "T: draws from before each of these tokens"] = 2
    closing_words: Annotated[tuple[str, ...], "No fork after a token with one of these words in it, in any case"] = (
        "answer",
        "conclusion",
    )
    closing_ids: Annotated[frozenset[int], "Found by each replica from closing_words: leave it empty"] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, initial_draws=self.initial_draws, rounds=self.rounds)
        at_least(1, forks_per_answer=self.forks_per_answer, draws_per_fork=self.draws_per_fork)

    @property
    def num_draws(self) -> int:
        return self.initial_draws * (1 + self.forks_per_answer * self.rounds * self.draws_per_fork)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        tokens_of_answer: dict[int, list[tuple[float, float, int, int]]] = {}
        for draw_id, draw in enumerate(tree.draws):
            if draw.counted_reward is not None:
                tokens = tokens_of_answer.setdefault(_first_answer(tree.draws, draw_id), [])
                tokens += ((-draw.logprobs[nth], rng.random(), draw_id, draw.cut + nth) for nth in self._forkable(draw))
        return tuple(
            Branch(draw_id, cut, self.draws_per_fork)
            for tokens in tokens_of_answer.values()
            for _, _, draw_id, cut in heapq.nlargest(self.forks_per_answer, tokens)
        )

    def _forkable(self, draw: Draw) -> range:
        """Which of the draw's tokens may be drawn again: not those of a leaf that the limit cut."""
        stop = len(draw.token_ids)
        if draw.is_cut:
            leaf_start = draw.step_ends[-2] if len(draw.step_ends) > 1 else draw.cut
            stop = leaf_start - draw.cut + 1
        closing = (nth + 1 for nth, token in enumerate(draw.token_ids) if token in self.closing_ids)
        return range(1, min(stop, next(closing, stop)))

    def for_vocabulary(self, bytes_of_token: Sequence[bytes]) -> Self:
        return replace(self, closing_ids=ids_containing(bytes_of_token, self.closing_words))


def _first_answer(draws: Sequence[Draw], draw_id: int) -> int:
    """The draw from the prompt whose tree the draw is in."""
    while (parent := draws[draw_id].parent) is not None:
        draw_id = parent
    return draw_id
