"""The trajectories that a step trains on, taken from its trees, with the advantage and weight of every token."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.learner.model.prefix_rows import Ints
from services.learner.objective_config import LossNormalization
from shared.protocol.tree import ScoredTree
from shared.tree.credit import Advantages
from shared.tree.diagnostics import Mean
from shared.tree.draw import WeightVersion
from shared.tree.node import Tree

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BuiltTree:
    """A scored tree with the nodes that its draws span, which are built once."""

    scored: ScoredTree
    nodes: Tree

    @classmethod
    def of(cls, scored: ScoredTree) -> "BuiltTree":
        return cls(scored, scored.tree())


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One answer after its prompt, as the engine sampled it. Every array has one entry per token of the answer."""

    prompt_ids: tuple[int, ...]
    token_ids: Ints
    engine_logprobs: Floats
    """Of the full softmax; 0 where a token was given."""
    sampling_logprobs: Floats
    """Of what the engine sampled from: the same, unless top-p or top-k cut the support and the engine says so."""
    is_current: NDArray[np.bool_]
    """Which tokens the learner's present weights sampled."""
    is_given: NDArray[np.bool_]
    """Which tokens were put there, and not sampled: they are not trained on."""
    is_cut: bool
    """Whether the token limit ended it."""
    advantages: Floats
    weights: Floats
    old_logprobs: Floats | None = None
    """Under the weights as the step begins; None: those of the forward pass that is trained on."""
    reference_logprobs: Floats | None = None
    places: Ints | None = None
    """After how many tokens of the answer the policy's hidden state is read; None: nowhere."""

    def first(self, num_tokens: int, places: Ints) -> "Trajectory":
        """Its first tokens alone, with places to read in them."""
        of_tokens = ("token_ids", "engine_logprobs", "sampling_logprobs", "is_current", "is_given")
        arrays = {name: getattr(self, name)[:num_tokens] for name in (*of_tokens, "advantages", "weights")}
        return replace(self, places=places, **arrays)


def extract_trajectories(scored: ScoredTree, current: WeightVersion) -> list[Trajectory]:
    """The trajectory of every draw, judged or not, with no credit yet."""
    trajectories: list[Trajectory] = []
    for draw in scored.draws:
        is_given = ~np.array(draw.is_sampled)
        arrays: list[NDArray[Any]] = [
            np.array(draw.token_ids, np.int64),
            np.array(draw.of_sampled(draw.logprobs), np.float32),
            np.array(draw.of_sampled(draw.sampling_logprobs or draw.logprobs), np.float32),
            np.repeat([one.version == current for one in draw.spans], [one.end - one.start for one in draw.spans])
            & ~is_given,
            is_given,
        ]
        if draw.parent is not None:
            parent = trajectories[draw.parent]
            before: list[NDArray[Any]] = [
                parent.token_ids,
                parent.engine_logprobs,
                parent.sampling_logprobs,
                parent.is_current,
                parent.is_given,
            ]
            arrays = [np.concatenate([old[: draw.cut], new]) for old, new in zip(before, arrays, strict=True)]
        ids, logprobs, sampling_logprobs, is_current, is_given = arrays
        zeros = np.zeros(len(ids), np.float32)
        known = (scored.task.prompt_ids, ids, logprobs, sampling_logprobs, is_current, is_given, draw.is_cut)
        trajectories.append(Trajectory(*known, advantages=zeros, weights=zeros))
    return trajectories


def penalize_overlong(tree: Tree, max_answer_tokens: int, share: float, penalty: float) -> Tree:
    """O-11: R − penalty·(|y| − (1 − share)·L)/(share·L), within [0, penalty], L the token limit (DAPO)."""
    if share == 0:
        return tree
    free = (1.0 - share) * max_answer_tokens

    def lose(length: int) -> float:
        return penalty * min(max((length - free) / (share * max_answer_tokens), 0.0), 1.0)

    rewards = zip(tree.draws, tree.reward_of_draw, strict=True)
    return tree.with_rewards([None if reward is None else reward - lose(draw.end) for draw, reward in rewards])


def assign_credit(
    trajectories: Sequence[Trajectory], tree: Tree, weights: Sequence[float], advantages: Advantages
) -> list[Trajectory]:
    """The trajectories of the tree's judged draws, with advantages and weights of their nodes.

    A node on m trajectories gives each 1/m of its weight; tokens that were given have none.
    """
    of_paths = advantages.on_paths(tree)
    credited = []
    for draw_id, trajectory in enumerate(trajectories):
        if path := tree.path(draw_id):
            nodes = [tree.nodes[node_id] for node_id in path]
            lengths = [node.end - node.start for node in nodes]
            shares = [weights[node_id] / node.num_leaves for node_id, node in zip(path, nodes, strict=True)]
            credited.append(
                replace(
                    trajectory,
                    advantages=np.repeat(np.array(of_paths[draw_id], np.float32), lengths),
                    weights=np.repeat(np.array(shares, np.float32), lengths) * ~trajectory.is_given,
                )
            )
    return credited


def mask_likely(trajectories: Sequence[Trajectory], bound: float | None) -> list[Trajectory]:
    """O-13: the trajectories with weight 0 at tokens that were at least as probable as the bound when the engine
    sampled them, in its full softmax."""
    if bound is None:
        return list(trajectories)
    return [replace(one, weights=one.weights * (np.exp(one.engine_logprobs) < bound)) for one in trajectories]


def share_masked(before: Sequence[Trajectory], after: Sequence[Trajectory]) -> Mean:
    """The share of tokens with a weight that have none any more."""
    total, left = (sum(int(np.count_nonzero(one.weights)) for one in every) for every in (before, after))
    return Mean(float(total - left), total)


def count_advantages(groups: Sequence[Sequence[Trajectory]]) -> dict[float, float]:
    """The weight of all tokens that have each advantage."""
    counts: dict[float, float] = defaultdict(float)
    for one in (one for group in groups for one in group):
        is_trained = one.weights != 0
        of_tokens, weights = one.advantages[is_trained], one.weights[is_trained].astype(np.float64)
        starts = np.flatnonzero(np.diff(of_tokens, prepend=np.nan))  # a node's tokens have one advantage
        sums = np.add.reduceat(weights, starts) if len(starts) else weights
        for advantage, weight in zip(of_tokens[starts].tolist(), sums.tolist(), strict=True):
            counts[advantage] += weight
    return dict(counts)


def scale_advantages(groups: Sequence[Sequence[Trajectory]], shift: float, divisor: float) -> list[list[Trajectory]]:
    """The same trajectories with advantages (A − shift)/divisor."""
    return [
        [replace(one, advantages=(one.advantages - np.float32(shift)) / np.float32(divisor)) for one in group]
        for group in groups
    ]


def normalize_weights(
    trajectories: Sequence[Trajectory],
    normalization: LossNormalization,
    max_answer_tokens: int,
    *,
    mask_truncated: bool = False,
) -> list[Trajectory]:
    """Divides the weights of a mini-batch, so that its loss is the plain sum over its tokens.

    Tokens of weight 0 are not trained on, and do not count. With `mask_truncated`, answers that the limit cut are left
    out, and count in divisors as answers without tokens. A mean over all tokens is by their weights: where distinct
    nodes count once, so do their tokens.
    """
    trained = [one for one in trajectories if not (mask_truncated and one.is_cut)]
    lengths = [max(int(np.count_nonzero(one.weights)), 1) for one in trained]
    match normalization:
        case LossNormalization.TRAJECTORY:
            divisors = [float(len(trajectories) * length) for length in lengths]
        case LossNormalization.TOKEN:
            divisors = [sum(float(one.weights.sum(dtype=np.float64)) for one in trained) or 1.0] * len(trained)
        case LossNormalization.CONSTANT:
            divisors = [float(len(trajectories) * max_answer_tokens)] * len(trained)
    pairs = zip(trained, divisors, strict=True)
    return [replace(one, weights=one.weights / np.float32(divisor)) for one, divisor in pairs]
