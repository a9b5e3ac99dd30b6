"""From the draws of trees to padded micro-batches of trajectories.

Shapes: B trajectories, T tokens of the longest answer; R rows of S slots, in which their tokens are computed. A loss is
counted per trajectory and token; where trajectories begin alike, a forward pass computes what they share once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.learner.config import LossNormalization
from services.learner.training.prefix_rows import Block, Ints, Slots, laid_out
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, WeightVersion
from shared.tree.node import Tree

Floats: TypeAlias = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One judged answer after its prompt, as the engine sampled it. The columns run over the answer's tokens."""

    prompt_ids: tuple[int, ...]
    token_ids: Ints
    engine_logprobs: Floats
    is_current: NDArray[np.bool_]
    """Which tokens the learner's present weights sampled."""
    advantages: Floats
    weights: Floats
    old_logprobs: Floats | None = None
    """Under the weights as the step begins; None: those of the pass that is trained on."""
    reference_logprobs: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """What one forward and backward pass takes. `weights_BT` hold the divisor: a loss is a plain sum.

    Every column is 0 at the padding.
    """

    rows: tuple[int, ...]
    """Which of the packed trajectories each row of the columns is."""
    slots: Slots
    slot_BT: Tensor
    """Where each token of an answer is computed, in the flattened rows."""
    is_answer_BT: Tensor
    is_current_BT: Tensor
    advantages_BT: Tensor
    weights_BT: Tensor
    engine_logprobs_BT: Tensor
    old_logprobs_BT: Tensor | None
    reference_logprobs_BT: Tensor | None

    def of_answers(self, values_RS: Tensor) -> Tensor:
        """The values at the answers' tokens [B, T]."""
        return values_RS.flatten()[self.slot_BT].where(self.is_answer_BT, 0.0)

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on another device."""
        moved: dict[str, Any] = {
            field.name: column.to(device)
            for field in fields(self)
            if isinstance(column := getattr(self, field.name), Tensor | Slots)
        }
        return replace(self, **moved)

    def without_weight(self) -> "MicroBatch":
        """The same, adding nothing to any loss."""
        return replace(self, weights_BT=torch.zeros_like(self.weights_BT))


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


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A block, and the trajectories in it with the slots of their tokens."""

    block: Block
    slots_of: dict[int, Ints]


def pack(trajectories: Sequence[Trajectory], max_tokens: int, *, share_prefixes: bool) -> list[list[PackedBlock]]:
    """The rows of micro-batches of at most `max_tokens` slots, padding included, the longest rows first; a trajectory
    that is longer has one to itself."""
    packed = sorted(_blocks(trajectories, max_tokens, share_prefixes), key=lambda one: len(one.block), reverse=True)
    plans = []
    while packed:
        num_rows = max(1, max_tokens // len(packed[0].block))
        plans.append(packed[:num_rows])
        packed = packed[num_rows:]
    return plans


def _blocks(trajectories: Sequence[Trajectory], max_tokens: int, share_prefixes: bool) -> Iterator[PackedBlock]:
    """Blocks of at most `max_tokens` slots: of all trajectories after one prompt, or each its own."""
    after: dict[tuple[int, ...] | int, list[int]] = {}
    for row, one in enumerate(trajectories):
        after.setdefault(one.prompt_ids if share_prefixes else row, []).append(row)
    for rows in after.values():
        packed = PackedBlock(Block(), {})
        for row in rows:
            token_ids = [*trajectories[row].prompt_ids, *trajectories[row].token_ids.tolist()]
            if packed.slots_of and len(packed.block) + packed.block.num_new(token_ids) > max_tokens:
                yield packed
                packed = PackedBlock(Block(), {})
            packed.slots_of[row] = packed.block.add(token_ids)
        yield packed


def divided(trajectories: Sequence[Trajectory], divisor: LossNormalization, max_answer_tokens: int) -> list[Trajectory]:
    """The trajectories with weights over the divisor of their mini-batch, so that losses add."""
    return [
        replace(one, weights=one.weights / np.float32(by))
        for one, by in zip(trajectories, _divisors(trajectories, divisor, max_answer_tokens), strict=True)
    ]


def _divisors(trajectories: Sequence[Trajectory], divisor: LossNormalization, max_answer_tokens: int) -> list[int]:
    lengths = [len(one.token_ids) for one in trajectories]
    match divisor:
        case LossNormalization.TRAJECTORY:
            return [len(lengths) * length for length in lengths]
        case LossNormalization.TOKEN:
            return [sum(lengths)] * len(lengths)
        case LossNormalization.CONSTANT:
            return [len(lengths) * max_answer_tokens] * len(lengths)


def padded(packed: Sequence[PackedBlock], trajectories: Sequence[Trajectory]) -> MicroBatch:
    """The micro-batch of these rows of `pack`."""
    slots = laid_out([one.block for one in packed])
    num_slots = slots.token_ids_RS.shape[1]
    slots_of = {row: own + number * num_slots for number, one in enumerate(packed) for row, own in one.slots_of.items()}
    chosen = [trajectories[row] for row in slots_of]
    return MicroBatch(
        rows=tuple(slots_of),
        slots=slots,
        slot_BT=_column([own[len(trajectories[row].prompt_ids) :] for row, own in slots_of.items()]),
        is_answer_BT=_column([np.ones(len(one.token_ids), np.bool_) for one in chosen]),
        is_current_BT=_column([one.is_current for one in chosen]),
        advantages_BT=_column([one.advantages for one in chosen]),
        weights_BT=_column([one.weights for one in chosen]),
        engine_logprobs_BT=_column([one.engine_logprobs for one in chosen]),
        old_logprobs_BT=_column_if_known([one.old_logprobs for one in chosen]),
        reference_logprobs_BT=_column_if_known([one.reference_logprobs for one in chosen]),
    )


def _column(values: Sequence[NDArray[Scalar]]) -> Tensor:
    padded = np.zeros((len(values), max(len(one) for one in values)), values[0].dtype)
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded)


def _column_if_known(values: Sequence[Floats | None]) -> Tensor | None:
    known = [one for one in values if one is not None]
    return _column(known) if len(known) == len(values) else None


def unpacked(
    values_BT: Tensor, micro_batch: MicroBatch, trajectories: Sequence[Trajectory]
) -> Iterator[tuple[int, Floats]]:
    """Of each row, which trajectory it is, with the values at its answer's tokens."""
    for row, values_T in zip(micro_batch.rows, values_BT.numpy(), strict=True):
        yield row, values_T[: len(trajectories[row].token_ids)]
