"""Where a tree is drawn from next: the samplers.

A sampler makes `initial_draws` draws from the prompt and at most `num_draws` in all. In between, `expand(tree, round,
rng)` says, for rounds counted from 1, what to draw next; nothing when the tree is finished.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, TypeAlias

from shared.tree.draw import Draw
from shared.tree.ib_score import IBSettings, ib_scores
from shared.tree.node import Tree
from shared.tree.vocabulary import ids_containing


@dataclass(frozen=True, slots=True)
class Branch:
    """`count` new draws from the first `cut` tokens of the trajectory of draw `parent` (None: from the prompt)."""

    parent: int | None
    cut: int
    count: int


_KIND = "Which sampler: independent, ib, random, fixed-width or entropy"
_INITIAL_DRAWS = "B₀: draws from the prompt, before anything is known"
_ROUNDS = "Rounds of further draws, after the initial ones"


@dataclass(frozen=True, slots=True)
class IndependentSampler:
    """Independent answers: no tree."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Annotated[Literal["independent"], _KIND] = "independent"
    initial_draws: Annotated[int, _INITIAL_DRAWS] = 8

    def __post_init__(self) -> None:
        _at_least(1, initial_draws=self.initial_draws)

    @property
    def num_draws(self) -> int:
        return self.initial_draws

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class _NodeSampler:
    """A sampler of IBTree's size: each of some rounds draws B times from each of K nodes."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Annotated[str, _KIND]
    initial_draws: Annotated[int, _INITIAL_DRAWS] = 4
    rounds: Annotated[int, _ROUNDS] = 8
    nodes_per_round: Annotated[int, "K: nodes that are continued in a round"] = 1
    draws_per_node: Annotated[int, "B: draws from each of them"] = 1

    def __post_init__(self) -> None:
        _at_least(0, rounds=self.rounds)
        _at_least(1, initial_draws=self.initial_draws)
        _at_least(1, nodes_per_round=self.nodes_per_round, draws_per_node=self.draws_per_node)

    @property
    def num_draws(self) -> int:
        return self.initial_draws + self.rounds * self.nodes_per_round * self.draws_per_node


@dataclass(frozen=True, slots=True)
class IBSampler(_NodeSampler):
    """IBTree(B₀, L, K, B): each of L − 1 rounds draws B times from each of the K nodes of the highest IB-Score."""

    kind: Annotated[Literal["ib"], _KIND] = "ib"
    score: Annotated[IBSettings, "How nodes are scored; from [learner.method] what it does not state"] = field(
        default_factory=IBSettings
    )

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        scored = (
            (j, rng.random(), node_id)  # chance decides between equal scores
            for node_id, j in enumerate(ib_scores(tree, self.score))
            if j is not None
        )
        return tuple(
            _branch(tree, node_id, self.draws_per_node)
            for _, _, node_id in heapq.nlargest(self.nodes_per_round, scored)
        )


@dataclass(frozen=True, slots=True)
class RandomSampler(_NodeSampler):
    """As IBTree, at nodes drawn uniformly from all that are not leaves."""

    kind: Annotated[Literal["random"], _KIND] = "random"

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        if round > self.rounds:
            return ()
        inner = [node_id for node_id, node in enumerate(tree.nodes) if node.num_draws]
        chosen = rng.sample(inner, min(self.nodes_per_round, len(inner)))
        return tuple(_branch(tree, node_id, self.draws_per_node) for node_id in chosen)


@dataclass(frozen=True, slots=True)
class FixedWidthSampler:
    """Splits every path into `branching_factor` at every `every_steps`-th step end, up to `width` trajectories."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Annotated[Literal["fixed-width"], _KIND] = "fixed-width"
    initial_draws: Annotated[int, _INITIAL_DRAWS] = 2
    branching_factor: Annotated[int, "Into how many a path is split"] = 2
    every_steps: Annotated[int, "Reasoning steps between two splits"] = 2
    width: Annotated[int, "Trajectories at which splitting ends"] = 8

    def __post_init__(self) -> None:
        _at_least(1, initial_draws=self.initial_draws, every_steps=self.every_steps, width=self.width)
        if self.branching_factor < 2:
            raise ValueError(f"a path splits in at least 2 branches: {self.branching_factor}")

    @property
    def num_draws(self) -> int:
        return max(self.initial_draws, self.width)

    def expand(self, tree: Tree, round: int, rng: random.Random) -> tuple[Branch, ...]:
        level = [node_id for node_id, num_steps in _inner_step_ends(tree) if num_steps == round * self.every_steps]
        rng.shuffle(level)  # where there is not enough width for all, chance decides
        branches = []
        missing = self.width - len(tree.draws)
        for node_id in level:
            if (count := min(self.branching_factor - 1, missing)) > 0:
                branches.append(_branch(tree, node_id, count))
                missing -= count
        return tuple(branches)


@dataclass(frozen=True, slots=True)
class EntropySampler:
    """EPTree(M, N, L, T): in each of L rounds, T new draws start before each of the N tokens with the highest −log p
    in the tree of each of the M initial answers.

    Never from before the first token of a draw, nor after a token whose text contains one of `closing_words`, in any
    case. Which tokens those are is the vocabulary's to say: `for_vocabulary` gives a sampler its `closing_ids`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Annotated[Literal["entropy"], _KIND] = "entropy"
    initial_draws: Annotated[int, _INITIAL_DRAWS] = 6
    forks_per_answer: Annotated[int, "N: tokens per initial answer before which it is continued again"] = 2
    rounds: Annotated[int, _ROUNDS] = 1
    draws_per_fork: Annotated[int, "T: draws from before each of these tokens"] = 2
    closing_words: Annotated[tuple[str, ...], "No fork after a token with one of these words in it, in any case"] = (
        "answer",
        "conclusion",
    )
    closing_ids: Annotated[frozenset[int], "Found by each replica from closing_words: leave it empty"] = frozenset()

    def __post_init__(self) -> None:
        _at_least(1, initial_draws=self.initial_draws, rounds=self.rounds)
        _at_least(1, forks_per_answer=self.forks_per_answer, draws_per_fork=self.draws_per_fork)

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


AnySampler: TypeAlias = IndependentSampler | IBSampler | RandomSampler | FixedWidthSampler | EntropySampler


def for_vocabulary(sampler: AnySampler, bytes_of_token: Sequence[bytes]) -> AnySampler:
    """The sampler with what it must know of the tokens' texts. It reads the whole vocabulary: keep the result."""
    if isinstance(sampler, EntropySampler):
        return replace(sampler, closing_ids=ids_containing(bytes_of_token, sampler.closing_words))
    return sampler


def _branch(tree: Tree, node_id: int, count: int) -> Branch:
    node = tree.nodes[node_id]
    return Branch(node.draw, node.end, count)


def _inner_step_ends(tree: Tree) -> Iterator[tuple[int, int]]:
    """The nodes that end a step and are no leaves, each with the number of steps that end on the way to it."""
    num_steps = [0]
    for node_id, node in enumerate(tree.nodes[1:], 1):
        ends = () if node.draw is None else tree.draws[node.draw].step_ends
        ends_step = node.end in ends
        num_steps.append(num_steps[tree.parents[node_id]] + ends_step)
        if ends_step and node.num_draws:
            yield node_id, num_steps[node_id]


def _first_answer(draws: Sequence[Draw], draw_id: int) -> int:
    """The draw from the prompt whose tree the draw is in."""
    while (parent := draws[draw_id].parent) is not None:
        draw_id = parent
    return draw_id


def _at_least(minimum: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} is at least {minimum}: {count}")
