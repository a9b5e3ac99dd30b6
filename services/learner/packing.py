"""From the draws of trees to padded micro-batches of trajectories.

Shapes: B trajectories, T tokens of the longest one, prompt included. Every column of a token is 0 at the prompt and at
the padding. What a forward pass computes twice here (prompts, shared prefixes) is the price of padding; the trainer
sees micro-batches alone, so that another packing can take its place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.learner.config import Divisor
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, WeightVersion
from shared.tree.node import Tree

Floats: TypeAlias = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One judged answer after its prompt, as the engine sampled it. The columns run over the answer's tokens."""

    prompt_ids: tuple[int, ...]
    token_ids: NDArray[np.int64]
    engine_logprobs: Floats
    is_current: NDArray[np.bool_]
    """Which tokens the learner's present weights sampled."""
    advantages: Floats
    weights: Floats
    old_logprobs: Floats | None = None
    """Under the weights as the step begins; None: those of the pass that is trained on."""
    reference_logprobs: Floats | None = None

    @property
    def num_tokens(self) -> int:
        """Of the prompt and the answer."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """What one forward and backward pass takes. `weights_BT` hold the divisor: a loss is a plain sum."""

    rows: tuple[int, ...]
    """Which of the packed trajectories each row is."""
    token_ids_BT: Tensor
    is_answer_BT: Tensor
    is_current_BT: Tensor
    advantages_BT: Tensor
    weights_BT: Tensor
    engine_logprobs_BT: Tensor
    old_logprobs_BT: Tensor | None
    reference_logprobs_BT: Tensor | None


def trajectories_of(scored: ScoredTree, tree: Tree, current: WeightVersion) -> list[Trajectory]:
    """The trajectory of every draw, as yet without credit; those that count are in `tree.leaf_of_draw`."""
    trajectories: list[Trajectory] = []
    for draw in tree.draws:
        no_credit = np.zeros(len(draw.token_ids), np.float32)
        own = Trajectory(
            prompt_ids=scored.task.prompt_ids,
            token_ids=np.array(draw.token_ids, np.int64),
            engine_logprobs=np.array(draw.logprobs, np.float32),
            is_current=_sampled_by(draw, current),
            advantages=no_credit,
            weights=no_credit,
        )
        trajectories.append(own if draw.parent is None else _continued(trajectories[draw.parent], draw.cut, own))
    return trajectories


def _continued(above: Trajectory, cut: int, own: Trajectory) -> Trajectory:
    """A draw's own tokens behind the prefix of its parent's that it continues."""
    return replace(
        own,
        token_ids=np.concatenate([above.token_ids[:cut], own.token_ids]),
        engine_logprobs=np.concatenate([above.engine_logprobs[:cut], own.engine_logprobs]),
        is_current=np.concatenate([above.is_current[:cut], own.is_current]),
        advantages=np.concatenate([above.advantages[:cut], own.advantages]),
        weights=np.concatenate([above.weights[:cut], own.weights]),
    )


def _sampled_by(draw: Draw, version: WeightVersion) -> NDArray[np.bool_]:
    return np.repeat([span.version == version for span in draw.spans], [span.end - span.start for span in draw.spans])


def credited(
    trajectory: Trajectory, tree: Tree, draw_id: int, of_path: Sequence[float], node_weights: Sequence[float]
) -> Trajectory:
    """The trajectory with the advantages of its path's nodes; a node on m trajectories gives each 1/m of its weight."""
    path = tree.path(draw_id)
    nodes = [tree.nodes[node_id] for node_id in path]
    lengths = [node.end - node.start for node in nodes]
    shares = [node_weights[node_id] / node.num_leaves for node_id, node in zip(path, nodes, strict=True)]
    return replace(
        trajectory,
        advantages=np.repeat(np.array(of_path, np.float32), lengths),
        weights=np.repeat(np.array(shares, np.float32), lengths),
    )


def pack(trajectories: Sequence[Trajectory], max_tokens: int) -> Iterator[MicroBatch]:
    """Micro-batches of at most `max_tokens` padded tokens, the longest first; a longer trajectory has one to itself."""
    order = sorted(range(len(trajectories)), key=lambda row: trajectories[row].num_tokens, reverse=True)
    while order:
        num_rows = max(1, max_tokens // trajectories[order[0]].num_tokens)
        yield _padded(order[:num_rows], trajectories)
        order = order[num_rows:]


def divided(trajectories: Sequence[Trajectory], divisor: Divisor, max_answer_tokens: int) -> list[Trajectory]:
    """The trajectories with weights over the divisor of their mini-batch, so that losses add."""
    return [
        replace(one, weights=one.weights / np.float32(by))
        for one, by in zip(trajectories, _divisors(trajectories, divisor, max_answer_tokens), strict=True)
    ]


def _divisors(trajectories: Sequence[Trajectory], divisor: Divisor, max_answer_tokens: int) -> list[int]:
    lengths = [len(one.token_ids) for one in trajectories]
    match divisor:
        case Divisor.TRAJECTORY:
            return [len(lengths) * length for length in lengths]
        case Divisor.TOKEN:
            return [sum(lengths)] * len(lengths)
        case Divisor.CONSTANT:
            return [len(lengths) * max_answer_tokens] * len(lengths)


def _padded(rows: Sequence[int], trajectories: Sequence[Trajectory]) -> MicroBatch:
    chosen = [trajectories[row] for row in rows]
    starts = [len(one.prompt_ids) for one in chosen]
    length = chosen[0].num_tokens

    def column(values: Sequence[NDArray[Scalar]]) -> Tensor:
        padded = np.zeros((len(values), length), values[0].dtype)
        for row, start, answer in zip(padded, starts, values, strict=True):
            row[start : start + len(answer)] = answer
        return torch.from_numpy(padded)

    def column_if_known(values: Sequence[Floats | None]) -> Tensor | None:
        known = [one for one in values if one is not None]
        return column(known) if len(known) == len(values) else None

    token_ids_BT = column([one.token_ids for one in chosen])
    for row, one in enumerate(chosen):
        token_ids_BT[row, : starts[row]] = torch.tensor(one.prompt_ids)
    return MicroBatch(
        rows=tuple(rows),
        token_ids_BT=token_ids_BT,
        is_answer_BT=column([np.ones(len(one.token_ids), np.bool_) for one in chosen]),
        is_current_BT=column([one.is_current for one in chosen]),
        advantages_BT=column([one.advantages for one in chosen]),
        weights_BT=column([one.weights for one in chosen]),
        engine_logprobs_BT=column([one.engine_logprobs for one in chosen]),
        old_logprobs_BT=column_if_known([one.old_logprobs for one in chosen]),
        reference_logprobs_BT=column_if_known([one.reference_logprobs for one in chosen]),
    )


def unpacked(
    values_BT: Tensor, micro_batch: MicroBatch, trajectories: Sequence[Trajectory]
) -> Iterator[tuple[int, Floats]]:
    """Of each row, which trajectory it is, with the values at its answer's tokens."""
    for row, values_T in zip(micro_batch.rows, values_BT.numpy(), strict=True):
        start = len(trajectories[row].prompt_ids)
        yield row, values_T[start : trajectories[row].num_tokens]
