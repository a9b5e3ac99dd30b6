"""How several ranks share a step: rank 0 deals its micro-batches to all, each rank works on its own.

A sharded model gathers its weights layer by layer, so passes are collective: all ranks make equally many, and a pass
lasts as long as its largest micro-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor

from services.learner.model.prefix_rows import Layout, PrefixRows
from services.learner.training.packing import MicroBatch, pack
from services.learner.training.trajectories import Trajectory

_TENSOR, _DATACLASS = 1, 2
_CLASSES = {one.__name__: one for one in (MicroBatch, PrefixRows)}
"""Nothing else is made of what another process sent."""


class Work(StrEnum):
    """What a rank does with its micro-batches."""

    TRAIN = "train"
    """Forward and backward passes, and then the optimizer's step."""
    READ_POLICY = "read_policy"
    """Forward passes of the policy, whose log-probabilities go to rank 0."""
    READ_REFERENCE = "read_reference"
    READ_STATES = "read_states"
    """The same of the policy's hidden states, where trajectories name places."""
    SUM = "sum"
    """Adds up all ranks' figures, which ends a step."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Share:
    """What rank 0 sends to another rank, and nothing of what it sends to the others."""

    work: Work
    micro_batches: tuple[MicroBatch, ...] = ()
    num_passes: int = 0
    """Of every rank; those without a micro-batch are made on nothing."""
    learning_rate: float = 0.0

    def pack(self) -> bytes:
        values = self.work.value, self.micro_batches, self.num_passes, self.learning_rate
        return bytes(msgpack.packb(values, default=_pack_one))

    @classmethod
    def unpack(cls, data: bytes) -> "Share":
        work, *values = msgpack.unpackb(data, ext_hook=_unpack_one, use_list=False)
        return cls(Work(work), *values)


def deal(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """The items of every rank, in the order of its passes.

    Items of like cost make a pass together, the dearest first, so that ranks wait the least for each other; within a
    pass the rank that has had the least takes the dearest. Only the last pass may leave ranks without an item.
    """
    if num_ranks == 1:
        return [list(range(len(costs)))]
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    hands: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0.0] * num_ranks
    for start in range(0, len(order), num_ranks):
        ranks = sorted(range(num_ranks), key=loads.__getitem__)
        for index, rank in zip(order[start : start + num_ranks], ranks, strict=False):
            hands[rank].append(index)
            loads[rank] += costs[index]
    return hands


def _pack_one(value: Any) -> msgpack.ExtType:
    if isinstance(value, Tensor):
        array = value.numpy()
        return msgpack.ExtType(_TENSOR, msgpack.packb((array.dtype.str, array.shape, array.tobytes())))
    if type(value) in _CLASSES.values():
        values = [getattr(value, field.name) for field in fields(value)]
        return msgpack.ExtType(_DATACLASS, msgpack.packb((type(value).__name__, values), default=_pack_one))
    raise TypeError(f"{type(value).__name__} is no part of a share")


def _unpack_one(code: int, data: bytes) -> Any:
    if code == _TENSOR:
        dtype, shape, content = msgpack.unpackb(data)
        return torch.from_numpy(np.frombuffer(content, dtype).reshape(shape).copy())
    name, values = msgpack.unpackb(data, ext_hook=_unpack_one, use_list=False)
    return _CLASSES[name](*values)


def _make_nothing() -> MicroBatch:
    of_token = np.zeros(1, np.float32)
    token = Trajectory(
        prompt_ids=(0,),
        token_ids=np.zeros(1, np.int64),
        engine_logprobs=of_token,
        sampling_logprobs=of_token,
        is_current=np.zeros(1, np.bool_),
        is_given=np.zeros(1, np.bool_),
        is_cut=False,
        advantages=of_token,
        weights=of_token,
    )
    (rows,) = pack([token], 1, Layout.APART)
    return MicroBatch.collate(rows, [token])


NOTHING = _make_nothing()
"""The smallest micro-batch, one token: for passes of a rank that has nothing to do. No loss is made of it."""
