"""What one training step did to the policy, as numbers."""

import math
from collections.abc import Sequence
from operator import sub

import torch
from torch import Tensor

from services.learner.model.flops import peak_flops
from services.learner.model.process_group import ProcessGroup
from services.learner.training.clock import StepClock
from services.learner.training.value_learner import ValueReport
from services.learner.training.workload import Workload
from shared.protocol.figures import UpdateFigures
from shared.tree.credit import Advantages
from shared.tree.diagnostics import Mean

_CPU = torch.device("cpu")
_GIB = 1 << 30
_SUMMED = (
    *("tokens", "loss", "entropy", "kl", "clipped", "masked", "corrections", "capped"),
    *("gap", "current_tokens", "router_loss"),
)


class StepSums:
    """Sums over the nodes of a step's trees and over the tokens of its micro-batches. Token sums stay on the device
    until `of_all_ranks`, so that adding never waits for it."""

    def __init__(self, device: torch.device = _CPU, own_terms: Sequence[str] = ()) -> None:
        """`own_terms`: what the loss terms of the user's own are called."""
        self.advantage_global = Mean()
        self.advantage_local = Mean()
        self.peak_memory_bytes = 0
        self.memory_retries = 0
        self.values = ValueReport(None, 0)
        self.credit_failures = 0
        self.likely = Mean()
        self.largest_ratio = torch.zeros((), dtype=torch.float64, device=device)
        self.own_terms = tuple(own_terms)
        names = (*_SUMMED, *self.own_terms)
        self._sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}

    def add_advantages(self, of_nodes: Advantages) -> None:
        """|A_GL| and |A − A_GL| of every node but the root (A-3)."""
        total, global_part = of_nodes.of_nodes[1:], (of_nodes.global_part or of_nodes.of_nodes)[1:]
        self.advantage_global += Mean.of(map(abs, global_part))
        self.advantage_local += Mean.of(map(abs, map(sub, total, global_part)))

    def add(self, **values: Tensor) -> None:
        """Values of a micro-batch by the name of their sum, 0 at the padding."""
        for name, value in values.items():
            self._sums[name] += value.sum()

    def add_ratios(self, ratios_BT: Tensor) -> None:
        """π_θ/π_old, 0 at the padding; the largest is kept."""
        self.largest_ratio = torch.maximum(self.largest_ratio, ratios_BT.max().double())

    def add_passes(self, other: "StepSums") -> None:
        """What passes added, of an optimizer step that was computed to its end."""
        for name, value in other._sums.items():
            self._sums[name] += value
        self.largest_ratio = torch.maximum(self.largest_ratio, other.largest_ratio)

    def of_all_ranks(self, process_group: ProcessGroup) -> dict[str, float]:
        """What all ranks added, by name. Collective."""
        totals = process_group.all_reduce(torch.stack([*self._sums.values()])).tolist()
        return dict(zip(self._sums, totals, strict=True))


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
        clock: StepClock,
        workload: Workload,
    ) -> "Update":
        """Of a step with these gradient norms, None for each that was refused, and this rank's times."""
        total = sums.of_all_ranks(process_group)
        peak_memory = process_group.all_reduce_max(torch.tensor(sums.peak_memory_bytes, dtype=torch.float64))
        largest_ratio = process_group.all_reduce_max(sums.largest_ratio)
        seconds, elapsed = clock.seconds(), clock.elapsed_seconds
        flops_per_second, peak = workload.flops / elapsed / process_group.size, peak_flops(process_group.device)
        reliability = sums.values.reliability
        finite = [norm for norm in norms if norm is not None]
        return cls(
            applied=len(finite),
            refused=len(norms) - len(finite),
            learning_rate=learning_rate,
            loss=_mean(total["loss"], len(norms)),
            grad_norm=_mean(sum(finite), len(finite)),
            entropy=_mean(total["entropy"], total["tokens"]),
            kl=_mean(total["kl"], total["tokens"]),
            clip_share=_mean(total["clipped"], total["tokens"]),
            router_loss=_mean(total["router_loss"], len(norms)) or None,
            masked_share=_mean(total["masked"], total["tokens"]),
            likely_share=sums.likely.value,
            ratio_max=_mean(largest_ratio, bool(total["tokens"])),
            engine_gap=_mean(total["gap"], total["current_tokens"]),
            advantage_global=_mean(sums.advantage_global.total, sums.advantage_global.count),
            advantage_local=_mean(sums.advantage_local.total, sums.advantage_local.count),
            tis_weight=_mean(total["corrections"], total["tokens"]),
            tis_capped_share=_mean(total["capped"], total["tokens"]),
            own_terms={name: total[name] / max(total["tokens"], 1.0) for name in sums.own_terms},
            value_loss=reliability.cross_entropy if reliability else None,
            value_brier=reliability.brier if reliability else None,
            value_correlation=reliability.correlation if reliability else None,
            trees_without_prior=sums.values.trees_without_prior,
            trained_tokens=int(total["tokens"]),
            memory_retries=sums.memory_retries,
            credit_failures=sums.credit_failures,
            peak_memory_gib=_mean(peak_memory / _GIB, bool(total["tokens"])),
            packing_share=workload.packing_share,
            model_tflops=flops_per_second / 1e12 if workload.flops else None,
            mfu=flops_per_second / peak if workload.flops and peak else None,
            **{f"{part}_seconds": spent for part, spent in seconds.items()},
        )


def _mean(total: float, count: float) -> float | None:
    """None without anything to average, and where it is NaN or infinite: messages take finite numbers only."""
    return total / count if count and math.isfinite(total) else None
