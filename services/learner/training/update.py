"""What one training step did to the policy, as numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from services.learner.training.process_group import ProcessGroup
from shared.protocol.figures import UpdateFigures
from shared.tree.advantage import Advantages
from shared.tree.diagnostics import Mean

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TokenSums:
    """Sums over the tokens of a step's micro-batches, over all passes."""

    tokens: float = 0.0
    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    gap: float = 0.0
    current_tokens: float = 0.0


class StepSums:
    """Sums over the nodes of a step's trees and over the tokens of its micro-batches. Token sums stay on the device
    until `token_sums`, so that adding never waits for it."""

    def __init__(self, device: torch.device = _CPU) -> None:
        self.advantage_global = Mean()
        self.advantage_local = Mean()
        self.largest_ratio = torch.zeros((), dtype=torch.float64, device=device)
        self._sums = {field.name: torch.zeros((), dtype=torch.float64, device=device) for field in fields(TokenSums)}

    def add_advantages(self, of_nodes: Advantages) -> None:
        """|A_GL| and |A − A_GL| of every node but the root (A-3)."""
        pairs = list(zip(of_nodes.global_part[1:], of_nodes.total[1:], strict=True))
        self.advantage_global += Mean.of(abs(part) for part, _ in pairs)
        self.advantage_local += Mean.of(abs(total - part) for part, total in pairs)

    def add_loss(self, loss: Tensor, is_answer_BT: Tensor, entropies_BT: Tensor) -> None:
        """The micro-batch's loss, its tokens, and their entropy."""
        self._sums["loss"] += loss
        self._sums["tokens"] += is_answer_BT.sum()
        self._sums["entropy"] += entropies_BT.sum()

    def add_kl(self, kl_BT: Tensor) -> None:
        """The divergence from the reference, 0 at the padding."""
        self._sums["kl"] += kl_BT.sum()

    def add_clipped(self, is_clipped_BT: Tensor) -> None:
        """The tokens that the clip left without a gradient."""
        self._sums["clipped"] += is_clipped_BT.sum()

    def add_ratios(self, ratios_BT: Tensor) -> None:
        """π_θ/π_old, 0 at the padding; the largest is kept."""
        self.largest_ratio = torch.maximum(self.largest_ratio, ratios_BT.max().double())

    def add_gap(self, gap_BT: Tensor, is_current_BT: Tensor) -> None:
        """|learner − engine| log-probability where both had the same weights."""
        self._sums["gap"] += gap_BT.abs().where(is_current_BT, 0.0).sum()
        self._sums["current_tokens"] += is_current_BT.sum()

    def token_sums(self, all_reduce: Callable[[Tensor], Tensor]) -> TokenSums:
        """What all ranks added."""
        return TokenSums(*all_reduce(torch.stack(list(self._sums.values()))).tolist())


class Update(UpdateFigures):
    """A step's optimizer steps and their figures, over all passes; a figure is None without anything to average."""

    applied: int = 0
    """Optimizer steps."""
    refused: int = 0
    """Optimizer steps left out because a gradient was NaN or infinite."""

    @classmethod
    def of(
        cls,
        sums: StepSums,
        process_group: ProcessGroup,
        norms: Sequence[float | None],
        learning_rate: float,
    ) -> "Update":
        """Of a step with these gradient norms, None for each that was refused."""
        tokens = sums.token_sums(process_group.all_reduce)
        largest_ratio = process_group.all_reduce_max(sums.largest_ratio)
        finite = [norm for norm in norms if norm is not None]
        return cls(
            applied=len(finite),
            refused=len(norms) - len(finite),
            learning_rate=learning_rate,
            loss=_mean(tokens.loss, len(norms)),
            grad_norm=_mean(sum(finite), len(finite)),
            entropy=_mean(tokens.entropy, tokens.tokens),
            kl=_mean(tokens.kl, tokens.tokens),
            clip_share=_mean(tokens.clipped, tokens.tokens),
            ratio_max=_mean(largest_ratio, bool(tokens.tokens)),
            engine_gap=_mean(tokens.gap, tokens.current_tokens),
            advantage_global=_mean(sums.advantage_global.total, sums.advantage_global.count),
            advantage_local=_mean(sums.advantage_local.total, sums.advantage_local.count),
        )


def _mean(total: float, count: float) -> float | None:
    """None without anything to average, and where it is NaN or infinite: messages take finite numbers only."""
    return total / count if count and math.isfinite(total) else None
