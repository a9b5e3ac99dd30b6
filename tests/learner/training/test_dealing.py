"""Dealing: every micro-batch counts once, all ranks make equally many passes, and nothing is lost on the way."""

from dataclasses import fields
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from services.learner.model.prefix_rows import Layout
from services.learner.training.dealing import NOTHING, Share, Work, deal
from services.learner.training.packing import MicroBatch, pack
from tests.learner.synthetic import credited_trajectories

costs = st.lists(st.integers(1, 50).map(float), max_size=12)


@given(costs, st.integers(1, 5))
def test_every_item_is_dealt_once_and_only_the_last_pass_leaves_ranks_idle(costs: list[float], num_ranks: int) -> None:
    hands = deal(costs, num_ranks)
    assert len(hands) == num_ranks
    assert sorted(index for hand in hands for index in hand) == list(range(len(costs)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


@given(costs, st.integers(2, 4))
def test_ranks_wait_for_each_other_no_longer_than_as_packed_and_their_loads_differ_by_one_item(
    costs: list[float], num_ranks: int
) -> None:
    def seconds(hands: list[list[int]]) -> float:
        """Of passes that last as long as their largest item."""
        return sum(
            max(costs[hand[number]] for hand in hands if number < len(hand)) for number in range(max(map(len, hands)))
        )

    hands = deal(costs, num_ranks)
    assert seconds(hands) <= seconds([list(range(rank, len(costs), num_ranks)) for rank in range(num_ranks)])
    loads = [sum(costs[index] for index in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(costs, default=0.0)


def test_one_rank_alone_keeps_the_order() -> None:
    assert deal([1.0, 3.0, 2.0], 1) == [[0, 1, 2]]


def tensors(value: Any) -> list[Tensor | None]:
    """All in a dataclass and its dataclasses."""
    found = [getattr(value, field.name) for field in fields(value)]
    inner = [one for part in found if hasattr(part, "__dataclass_fields__") for one in tensors(part)]
    return [one for one in found if one is None or isinstance(one, Tensor)] + inner


def test_a_share_survives_the_wire() -> None:
    trajectories = credited_trajectories(0)
    batches = tuple(MicroBatch.collate(rows, trajectories) for rows in pack(trajectories, 30, Layout.JOINED))
    share = Share(Work.TRAIN, batches, 7, 0.5)
    found = Share.unpack(share.pack())
    assert (found.work, found.num_passes, found.learning_rate) == (Work.TRAIN, 7, 0.5)
    assert len(found.micro_batches) == len(batches) > 1
    for ours, theirs in zip(found.micro_batches, batches, strict=True):
        assert ours.indices == theirs.indices
        for one, other in zip(tensors(ours), tensors(theirs), strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert one.dtype == other.dtype
                assert torch.equal(one, other)


def test_a_share_is_made_of_nothing_else() -> None:
    with pytest.raises(TypeError, match="object is no part of a share"):
        Share(Work.TRAIN, (object(),)).pack()  # type: ignore[arg-type]
    forged = msgpack.ExtType(2, msgpack.packb(("Popen", [["true"]])))
    with pytest.raises(KeyError, match="Popen"):
        Share.unpack(msgpack.packb(("train", [forged], 1, 0.0)))


def test_a_pass_on_nothing_has_one_token_without_weight() -> None:
    assert NOTHING.is_answer_BT.tolist() == [[True]]
    assert NOTHING.weights_BT.tolist() == [[0.0]]
