"""One step of IB-TPO: trees → advantages → micro-batches → loss → update (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from services.learner.config import LearnerConfig, OldPolicy
from services.learner.training.loss import Clip, clipped_surrogate, importance_weights, is_clipped, k3_divergence
from services.learner.training.packing import (
    Floats,
    MicroBatch,
    Trajectory,
    credited,
    divided,
    pack,
    padded,
    trajectories_of,
    unpacked,
)
from services.learner.training.policy import LanguageModel, Policy
from services.learner.training.process_group import ALONE, World
from services.learner.training.update import StepSums, Update
from shared.protocol.tree import ScoredTree
from shared.tree.advantage import Credit, Prior, advantages, node_weights, path_advantages
from shared.tree.draw import WeightVersion
from shared.tree.ib_score import confidences
from shared.tree.node import Tree, build_tree


class Trainer:
    """Updates a policy on scored trees. A trajectory's credit is a pure function of its tree.

    Where several processes train, all of them are given the same trees, and each computes a share of the micro-batches.
    """

    def __init__(
        self, policy: Policy, reference: LanguageModel | None, config: LearnerConfig, world: World = ALONE
    ) -> None:
        self._policy = policy
        self._world = world
        self._reference = reference
        self._credit = config.advantage
        self._objective = objective = config.objective
        self._clip = Clip(objective.clip_low, objective.clip_high)
        self._max_answer_tokens = config.growth.max_tokens
        self._updates_per_step = objective.epochs * objective.minibatches

    def step(self, scored: Sequence[ScoredTree], version: WeightVersion, lr: float, seed: str) -> Update:
        """Trains on `scored`, trees with a signal, under the weights called `version`."""
        trees = [build_tree(one.draws, one.task.growth.merge_equal_draws) for one in scored]
        drawn = [trajectories_of(one, tree, version) for one, tree in zip(scored, trees, strict=True)]
        if self._reference is not None:
            drawn = self._with_reference(self._reference, drawn)
        sums = StepSums(self._world.device)
        groups = [self._credited(tree, draws, sums) for tree, draws in zip(trees, drawn, strict=True)]
        if self._updates_per_step > 1:
            groups = self._with_old(groups)
        norms = [
            self._update(minibatch, lr, sums)
            for minibatch in _shuffled(groups, self._objective.epochs, self._objective.minibatches, random.Random(seed))
        ]
        return Update.of(sums, sums.totals(self._world.total), norms, lr)

    def engine_gap(self, scored: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        """Mean |learner's − engine's log-probability| over the tokens that the present weights, `version`, sampled."""
        drawn = [one for tree in scored for one in trajectories_of(tree, tree.tree(), version)]
        read = self._read(self._policy.model, drawn)
        gaps = [np.abs(mine - one.engine_logprobs)[one.is_current] for mine, one in zip(read, drawn, strict=True)]
        return float(np.concatenate(gaps).mean()) if any(map(len, gaps)) else None

    def _credited(self, tree: Tree, draws: Sequence[Trajectory], sums: StepSums) -> list[Trajectory]:
        """The trajectories that count, with the advantage and weight of every token."""
        credit = self._credit
        reference = _reference_confidences(tree, draws, credit)
        of_paths = path_advantages(tree, credit, reference)
        weights = node_weights(tree, credit.node_weight)
        sums.add_advantages(advantages(tree, replace(credit, lam=0.0)), advantages(tree, credit, reference))
        counted = [draw_id for draw_id, leaf in enumerate(tree.leaf_of_draw) if leaf is not None]
        return [credited(draws[draw_id], tree, draw_id, of_paths[draw_id], weights) for draw_id in counted]

    def _update(self, trajectories: Sequence[Trajectory], lr: float, sums: StepSums) -> float | None:
        """One optimizer step: the gradient's norm, None when it was not finite and nothing was changed."""
        weighted = divided(trajectories, self._objective.loss_normalization, self._max_answer_tokens)
        for micro_batch, counts in self._micro_batches(weighted):
            if counts:
                loss = self._loss(micro_batch, sums)
            else:
                loss = self._loss(micro_batch.without_weight(), StepSums(self._world.device))
            (loss * self._world.size).backward()  # type: ignore[no-untyped-call]  # processes' gradients are averaged
        return self._policy.apply_gradients(lr)

    def _loss(self, batch: MicroBatch, sums: StepSums) -> Tensor:
        """Σ w·(min(π_old/μ, C)·surrogate + kl_coef·k3) over the answers' tokens."""
        statistics = self._policy.model.statistics(batch.slots)
        logprobs_BT = batch.of_answers(statistics.logprobs_RS)
        present_BT = logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        if self._objective.old_policy is OldPolicy.ENGINE:
            old_BT, correction_BT = batch.engine_logprobs_BT, torch.ones_like(logprobs_BT)
        else:
            old_BT = present_BT
            correction_BT = importance_weights(present_BT, batch.engine_logprobs_BT, self._objective.tis_cap)
        loss_BT = correction_BT * clipped_surrogate(logprobs_BT, old_BT, batch.advantages_BT, self._clip)
        if batch.reference_logprobs_BT is not None:
            kl_BT = k3_divergence(logprobs_BT, batch.reference_logprobs_BT)
            loss_BT = loss_BT + self._objective.kl_coef * kl_BT
            sums.add_kl(kl_BT.detach())
        loss = (batch.weights_BT * loss_BT).sum()
        sums.add_loss(loss.detach(), batch.is_answer_BT, batch.of_answers(statistics.entropies_RS))
        sums.add_clipped(is_clipped(logprobs_BT.detach(), old_BT, batch.advantages_BT, self._clip))
        sums.add_gap(present_BT - batch.engine_logprobs_BT, batch.is_current_BT)
        return loss

    def _with_reference(self, reference: LanguageModel, drawn: list[list[Trajectory]]) -> list[list[Trajectory]]:
        read = iter(self._read(reference, [one for draws in drawn for one in draws]))
        return [[replace(one, reference_logprobs=next(read)) for one in draws] for draws in drawn]

    def _with_old(self, groups: list[list[Trajectory]]) -> list[list[Trajectory]]:
        read = iter(self._read(self._policy.model, [one for group in groups for one in group]))
        return [[replace(one, old_logprobs=next(read)) for one in group] for group in groups]

    def _micro_batches(self, trajectories: Sequence[Trajectory]) -> Iterator[tuple[MicroBatch, bool]]:
        """This process's, and whether each counts or is there for the others' sake."""
        share = self._objective.share_prefixes and self._policy.model.shares_prefixes
        plans = pack(trajectories, self._objective.micro_batch_tokens, share_prefixes=share)
        for plan, counts in self._world.dealt(plans):
            yield padded(plan, trajectories).to(self._world.device), counts

    @torch.no_grad()
    def _read(self, model: LanguageModel, trajectories: Sequence[Trajectory]) -> list[Floats]:
        """The log-probabilities of each answer's tokens, as `model` is now."""
        lengths = [len(one.token_ids) for one in trajectories]
        found = [np.zeros(length, np.float32) for length in lengths]
        for micro_batch, counts in self._micro_batches(trajectories):
            logprobs_BT = micro_batch.of_answers(model.statistics(micro_batch.slots).logprobs_RS)
            if counts:
                for row, values in unpacked(logprobs_BT.cpu(), micro_batch, trajectories):
                    found[row] = values
        if not found:
            return []
        everywhere: Floats = self._world.total(torch.from_numpy(np.concatenate(found))).numpy()
        return np.split(everywhere, np.cumsum(lengths)[:-1])


def _reference_confidences(tree: Tree, draws: Sequence[Trajectory], credit: Credit) -> tuple[float, ...] | None:
    """η₂ of every node under the reference, where A-2's prior π is the reference's."""
    if credit.prior is not Prior.REFERENCE or credit.lam == 0:
        return None
    logprobs = [
        [] if one.reference_logprobs is None else one.reference_logprobs[draw.cut :].tolist()
        for draw, one in zip(tree.draws, draws, strict=True)
    ]
    return confidences(tree, credit.confidence, logprobs)


def _shuffled(
    groups: Sequence[list[Trajectory]], epochs: int, minibatches: int, rng: random.Random
) -> list[list[Trajectory]]:
    """The trajectories of each optimizer step: every pass deals whole trees to `minibatches` of equal size (±1)."""
    dealt = []
    for _ in range(epochs):
        order = rng.sample(range(len(groups)), len(groups)) if epochs * minibatches > 1 else range(len(groups))
        dealt += [[one for tree in order[part::minibatches] for one in groups[tree]] for part in range(minibatches)]
    return [minibatch for minibatch in dealt if minibatch]
