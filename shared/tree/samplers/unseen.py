"""How much of what a node can still be continued to has not been seen yet (METHOD, S-4)."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from shared.tree.draw import trajectory
from shared.tree.ib_score import sampled_lengths, step_logprobs
from shared.tree.node import Tree

_ROUNDING = 1e-6
"""What is left of 1 where all has been seen: log-probabilities are float32s."""


def prefix_logprobs(tree: Tree) -> tuple[float, ...]:
    """L(s) = log π(s) of every node: of all sampled tokens from the prompt to its end."""
    logs = step_logprobs(tree)
    for node_id, parent in enumerate(tree.parents[1:], 1):
        logs[node_id] += logs[parent]
    return tuple(logs)


def prefix_lengths(tree: Tree) -> tuple[int, ...]:
    """How many tokens from the prompt to the end of every node were sampled."""
    lengths = sampled_lengths(tree)
    for node_id, parent in enumerate(tree.parents[1:], 1):
        lengths[node_id] += lengths[parent]
    return tuple(lengths)


def temper(tree: Tree, logs: Sequence[float], answer_nats: float) -> tuple[float, ...]:
    """The log-probabilities of prefixes, scaled down so that the mean answer has no less than −`answer_nats` (S-4t)."""
    answers = [-logs[leaf] for _, leaf in _leaves(tree)]
    surprise = fmean(answers) if answers else 0.0
    scale = answer_nats / surprise if surprise > answer_nats else 1.0
    return tuple(scale * log for log in logs)


def unseen_masses(tree: Tree, logs: Sequence[float] | None = None) -> tuple[float, ...]:
    """U(s) of every node: the probability that one more continuation of s is an answer which the tree does not have.

    1 − Σ exp(L(y) − L(s)) over the distinct answers y that begin with the tokens of s, on whatever path; 0 at leaves.
    `logs`: prefix_logprobs if they are known, or those of `temper`.
    """
    logs = logs or prefix_logprobs(tree)
    leaves = [(trajectory(tree.draws, draw_id), leaf) for draw_id, leaf in _leaves(tree)]
    logprob_of_answer = {answer: logs[leaf] for answer, leaf in leaves}
    answers = sorted(logprob_of_answer)
    place_of_answer = {answer: place for place, answer in enumerate(answers)}
    # in their order, answers that begin alike are neighbours
    shared = [0, *(_shared_length(a, b) for a, b in pairwise(answers)), 0]
    masses: list[float | None] = [None] * len(tree.nodes)
    for answer, leaf in leaves:
        node_id = leaf
        while node_id and masses[node_id] is None:
            alike = _alike(shared, place_of_answer[answer], tree.nodes[node_id].end)
            masses[node_id] = _unseen(logprob_of_answer[answers[place]] - logs[node_id] for place in alike)
            node_id = tree.parents[node_id]
    masses[0] = _unseen(logprob_of_answer.values())
    return tuple(mass or 0.0 for mass in masses)


def _unseen(logprobs: Iterable[float]) -> float:
    """1 less the sum of the probabilities."""
    mass = 1.0 - math.fsum(map(math.exp, logprobs))
    return mass if mass > _ROUNDING else 0.0


def _leaves(tree: Tree) -> list[tuple[int, int]]:
    """Every draw that counts, with its leaf."""
    return [(draw_id, leaf) for draw_id, leaf in enumerate(tree.leaf_of_draw) if leaf is not None]


def _alike(shared: Sequence[int], place: int, length: int) -> range:
    """The places of all answers that begin with the same `length` tokens, 1 or more, as the one at `place`, given how
    many each shares with the one before it."""
    first = last = place
    while shared[first] >= length:
        first -= 1
    while shared[last + 1] >= length:
        last += 1
    return range(first, last + 1)


def _shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """With how many equal tokens two answers begin; by halves, as equality of slices is fast."""
    equal, end = 0, min(len(a), len(b))
    while equal < end:
        middle = (equal + end + 1) // 2
        if a[equal:middle] == b[equal:middle]:
            equal = middle
        else:
            end = middle - 1
    return equal
