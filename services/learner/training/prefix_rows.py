"""Where tokens are computed: trajectories that begin with the same tokens share their slots.

Shapes: R rows of S slots. A row is a forest of token sequences: every slot follows another one, or begins a sequence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """What a forward pass reads."""

    token_ids_RS: Tensor
    positions_RS: Tensor
    """Of the token in its sequence."""
    previous_RS: Tensor
    """The slot in the same row that it follows; itself where a sequence begins."""
    sees_R1SS: Tensor | None
    """What a slot attends to: those it follows, and itself. None: all before it, as causal models do by themselves."""

    def to(self, device: torch.device) -> "Slots":
        """The same on another device."""
        moved: dict[str, Any] = {
            field.name: tensor.to(device)
            for field in fields(self)
            if isinstance(tensor := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class Block:
    """Sequences that are computed together in one row: each distinct prefix once."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.positions: list[int] = []
        self.previous: list[int] = []
        self._slot_after: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether it is one sequence, or prefixes of one."""
        return all(slot == max(0, number - 1) for number, slot in enumerate(self.previous))

    def num_new(self, token_ids: Sequence[int]) -> int:
        """How many slots `add` would make."""
        at = -1
        for number, token in enumerate(token_ids):
            if (slot := self._slot_after.get((at, token))) is None:
                return len(token_ids) - number
            at = slot
        return 0

    def add(self, token_ids: Sequence[int]) -> Ints:
        """The slots of a sequence's tokens."""
        slots = np.empty(len(token_ids), np.int64)
        at = -1
        for number, token in enumerate(token_ids):
            slot = self._slot_after.setdefault((at, token), len(self.token_ids))
            if slot == len(self.token_ids):
                self.token_ids.append(token)
                self.positions.append(number)
                self.previous.append(at if number else slot)
            slots[number] = at = slot
        return slots

    def sees(self, num_slots: int) -> NDArray[np.bool_]:
        """The attention mask of its row, padded to `num_slots`; padding sees itself, so that no softmax is empty."""
        mask = np.eye(num_slots, dtype=np.bool_)
        for slot, before in enumerate(self.previous):
            if before != slot:
                mask[slot, :slot] = mask[before, :slot]
        return mask


def laid_out(blocks: Sequence[Block]) -> Slots:
    """The blocks as rows, padded to the longest."""
    num_slots = max(len(block) for block in blocks)
    return Slots(
        token_ids_RS=_rows((block.token_ids for block in blocks), num_slots),
        positions_RS=_rows((block.positions for block in blocks), num_slots),
        previous_RS=_rows((block.previous for block in blocks), num_slots),
        sees_R1SS=None
        if all(block.is_chain for block in blocks)
        else torch.from_numpy(np.stack([block.sees(num_slots) for block in blocks]))[:, None],
    )


def _rows(values: Iterable[Sequence[int]], num_slots: int) -> Tensor:
    return torch.tensor([[*row, *[0] * (num_slots - len(row))] for row in values])
