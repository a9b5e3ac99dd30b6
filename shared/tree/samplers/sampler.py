"""What a sampler is: it decides where a tree is drawn from next (METHOD, Where to draw next)."""

import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import index
from typing import Protocol, Self

from shared.tree.draw import Draw, draw_before
from shared.tree.ib_score import IBSettings
from shared.tree.node import Tree

INITIAL_DRAWS = "B₀: draws from the prompt, before anything is known"
ROUNDS = "Rounds of further draws, after the initial ones"


@dataclass(frozen=True, slots=True)
class Branch:
    """`count` new draws from the first `cut` tokens of the trajectory of draw `parent` (None: from the prompt)."""

    parent: int | None
    cut: int
    count: int


class Sampler(Protocol):
    """Makes `initial_draws` draws from the prompt and at most `num_draws` in all, in rounds.

    One of your own is a frozen dataclass that subclasses this; its fields are its settings.
    """

    initial_draws: int
    """How many draws the tree begins with, at least 1."""
    score: IBSettings | None = None
    """How figures score its nodes; None: as `[learner.method]` says."""

    @property
    def asks_entropies(self) -> bool:
        """Whether its draws need `entropies`."""
        return False

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """The most draws of a tree."""

    @abstractmethod
    def expand(self, tree: Tree, round: int, rng: random.Random) -> Sequence[Branch]:
        """What to draw next, in the round counted from 1; nothing when the tree is finished.

        Chance comes from `rng` alone, so that a task's seed decides its tree.
        """

    def for_vocabulary(self, bytes_of_token: Sequence[bytes]) -> Self:
        """The sampler with what it must know of the tokens' texts, computed once for each policy."""
        return self

    def for_answers(self, max_tokens: int) -> Self:
        """The sampler with what it must know of the longest answer."""
        return self


def prepare_sampler(sampler: Sampler, bytes_of_token: Sequence[bytes], max_tokens: int) -> Sampler:
    """The sampler with what it must know of a policy's tokens and of the longest answer; ValueError if it is none."""
    prepared = sampler.for_vocabulary(bytes_of_token).for_answers(max_tokens)
    if Sampler not in type(prepared).__mro__:
        raise ValueError(f"for_vocabulary and for_answers return a sampler, not {prepared!r:.80}")
    return prepared


def choose_branches(
    sampler: Sampler, tree: Tree, round: int, rng: random.Random
) -> tuple[tuple[Branch, ...], random.Random]:
    """What the sampler draws next, checked, and the chance that is left. ValueError for what cannot be drawn."""
    most = max(sampler.num_draws - len(tree.draws), 0)
    found = sampler.expand(tree, round, rng)
    if not isinstance(found, Iterable):
        raise ValueError(f"expand gives a sequence of Branch, empty when the tree is finished, not {found!r:.80}")
    branches = tuple(map(_in_plain_numbers, islice(found, most + 1)))  # it may be endless
    check_branches(tree.draws, branches, most)
    return branches, rng


def _in_plain_numbers(branch: Branch) -> Branch:
    """With integers of Python, where a sampler gives those of numpy or torch."""
    if type(branch) is not Branch or {type(branch.cut), type(branch.count), type(branch.parent)} <= {int, type(None)}:
        return branch
    numbers = (branch.parent, branch.cut, branch.count)
    return Branch(*(index(one) if hasattr(one, "dtype") else one for one in numbers))  # type: ignore[arg-type]


def check_branches(draws: Sequence[Draw], branches: Sequence[Branch], most: int) -> None:
    """ValueError unless each branch starts inside the tokens that its parent sampled itself, and all together are at
    most so many draws."""
    for one in branches:
        if not isinstance(one, Branch):
            raise ValueError(f"a sampler gives Branch(parent, cut, count), not {one!r:.80}")
        if {type(one.count), type(one.cut)} != {int} or type(one.parent) not in {int, type(None)}:
            raise ValueError(f"parent, cut and count are integers: {one!r:.80}")
        if one.count < 1:
            raise ValueError(f"a branch has at least one draw: {one}")
        if one.parent is None:
            if one.cut != 0:
                raise ValueError(f"a draw from the prompt has cut 0: {one}")
            continue
        if not 0 <= one.parent < len(draws):
            raise ValueError(f"there are {len(draws)} draws to branch from, numbered from 0: {one}")
        parent = draws[one.parent]
        if not parent.cut < one.cut < parent.end:
            raise ValueError(f"draw {one.parent} itself sampled ({parent.cut}, {parent.end}): {one} starts outside")
    if (count := sum(one.count for one in branches)) > most:
        raise ValueError(f"{count} draws, where {most} are left of num_draws")


def branch_at(tree: Tree, node_id: int, count: int) -> Branch:
    """`count` draws from the end of a node that is no leaf."""
    node = tree.nodes[node_id]
    return Branch(node.draw, node.end, count)


def branch_before(draws: Sequence[Draw], draw_id: int, position: int, count: int) -> Branch:
    """`count` draws from the first `position` tokens of a draw's trajectory, which goes on after these."""
    if position == 0:
        return Branch(None, 0, count)
    return Branch(draw_before(draws, draw_id, position), position, count)


def equal_shares(total: int, num_shares: int, rng: random.Random) -> list[int]:
    """A total in shares that differ by 1 at most; chance decides which are larger."""
    share, rest = divmod(total, num_shares)
    larger = set(rng.sample(range(num_shares), rest))
    return [share + (nth in larger) for nth in range(num_shares)]


def at_least(minimum: int, **counts: int) -> None:
    """ValueError for the first setting below the minimum."""
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} is at least {minimum}: {count}")
