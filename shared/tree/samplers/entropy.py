"""EPTree of TreeRL, and entropy forests: branches before the tokens that the policy was least sure of."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

from shared.tree.draw import Draw
from shared.tree.node import Tree
from shared.tree.samplers.sampler import INITIAL_DRAWS, ROUNDS, Branch, Sampler, at_least
from shared.tree.samplers.tokens import SCORED_BY, TokenScore, first_answer, forkable, token_scores
from shared.tree.vocabulary import ids_containing


@dataclass(frozen=True, slots=True)
class EntropySampler(Sampler):
    """EPTree(M, N, L, T): in each of L rounds, T new draws start before each of the N tokens with the highest score
    (S-1 as published, or S-2) in the tree of each of the M initial answers.

    Never from before the first token of a draw, nor after a token whose text contains one of `closing_words`, in any
    case. Which tokens those are is the vocabulary's to say: `for_vocabulary` gives a sampler its `closing_ids`.
    """

    initial_draws: Annotated[int, INITIAL_DRAWS] = 6
    forks_per_answer: Annotated[int, "N: tokens per initial answer before which it is continued again"] = 2
    rounds: Annotated[int, ROUNDS] = 1
    draws_per_fork: Annotated[int, "T: draws from before each of these tokens"] = 2
    token_score: Annotated[TokenScore, SCORED_BY] = TokenScore.SURPRISE
    closing_words: Annotated[tuple[str, ...], "No fork after a token with one of these words in it, in any case"] = (
        "answer",
        "conclusion",
    )
    closing_ids: Annotated[frozenset[int], "Found by each replica from closing_words: leave it empty"] = frozenset()

    def __post_init__(self) -> None:
        at_least(1, initial_draws=self.initial_draws, rounds=self.rounds)
        at_least(1, forks_per_answer=self.forks_per_answer, draws_per_fork=self.draws_per_fork)

    @property
    def asks_entropies(self) -> bool:
        return self.token_score is TokenScore.ENTROPY

    @property
    def num_draws(self) -> int:
        return self.initial_draws * (1 + self.forks_per_answer * self.rounds * self.draws_per_fork)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        tokens_of_answer: dict[int, list[tuple[float, float, int, int]]] = {}
        for draw_id, draw in enumerate(tree.draws):
            if draw.counted_reward is not None:
                tokens = tokens_of_answer.setdefault(first_answer(tree.draws, draw_id), [])
                scores = token_scores(draw, self.token_score)
                tokens += ((scores[nth], rng.random(), draw_id, draw.cut + nth) for nth in self._forkable(draw))
        return tuple(
            Branch(draw_id, cut, self.draws_per_fork)
            for tokens in tokens_of_answer.values()
            for _, _, draw_id, cut in heapq.nlargest(self.forks_per_answer, tokens)
        )

    def _forkable(self, draw: Draw) -> list[int]:
        """Which of the draw's tokens may be drawn again: none after one that closes."""
        closing = (nth for nth, token in enumerate(draw.token_ids) if token in self.closing_ids)
        last = next(closing, len(draw.token_ids))
        return [nth for nth in forkable(draw) if nth <= last]

    def for_vocabulary(self, bytes_of_token: Sequence[bytes]) -> Self:
        return replace(self, closing_ids=ids_containing(bytes_of_token, self.closing_words))
