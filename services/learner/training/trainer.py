"""One step of IB-TPO: trees → advantages → micro-batches → loss → update (METHOD, Objective).

Shapes: B trajectories, T tokens of the longest answer.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from services.learner.config import GradientSync, LearnerConfig
from services.learner.model.flops import ModelFlops
from services.learner.model.memory import is_out_of_memory, peak_memory_bytes, release_memory, reset_peak_memory
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import Layout
from services.learner.model.process_group import SINGLE_PROCESS, ProcessGroup
from services.learner.own_credit import CreditAssigner, CreditFailed
from services.learner.training.clock import Part, StepClock
from services.learner.training.dealing import NOTHING, Share, Work, deal
from services.learner.training.objective import Objective
from services.learner.training.packing import MicroBatch, PackedRow, default_budget, pack
from services.learner.training.pass_budget import PassBudget
from services.learner.training.trajectories import (
    BuiltTree,
    Floats,
    Trajectory,
    assign_credit,
    count_advantages,
    extract_trajectories,
    mask_likely,
    normalize_weights,
    penalize_overlong,
    scale_advantages,
    share_masked,
)
from services.learner.training.update import StepSums, Update
from services.learner.training.value_learner import ValueLearner, reading_trajectories
from services.learner.training.workload import Workload
from shared.errors import InvalidInput
from shared.plugins import Deadline, OwnProcesses
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.tree.credit import SideInformation
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
Group: TypeAlias = list[Trajectory]
"""The trajectories of one tree."""
T = TypeVar("T")


class Trainer:
    """Updates a policy on scored trees. A trajectory's credit is a pure function of its tree.

    Rank 0 is given the trees, and deals their micro-batches to all ranks; the others `follow`.
    """

    def __init__(
        self,
        policy: Policy,
        reference: LanguageModel | None,
        config: LearnerConfig,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._policy = policy
        self._process_group = process_group
        self._reference = reference
        self._credit = config.advantage
        self.own = OwnProcesses(config.plugin_seconds)
        """What computes code of the user's own that needs no tensors."""
        self._assigner = CreditAssigner(self._credit, self.own)
        self._objective = Objective(config.objective, Deadline(config.plugin_seconds))
        self._settings = config.objective
        self._max_answer_tokens = config.growth.max_tokens
        self._budget = PassBudget(config.objective.micro_batch_tokens)
        self._syncs_every_pass = config.gradient_sync is GradientSync.MICRO_BATCH
        self._clock = StepClock(process_group.device)
        self._flops = ModelFlops.of(policy.model.module)
        self._workload = Workload(self._flops)
        self.values = ValueLearner(config)

    def step(
        self,
        trees: Sequence[BuiltTree],
        version: WeightVersion,
        lr: float,
        seed: str,
        ties: Sequence[BuiltTree] = (),
    ) -> Update:
        """Trains on trees with a signal, under the weights called `version`; from `ties`, which have none, only values
        learn."""
        device = self._process_group.device
        self._clock, self._workload = StepClock(device), Workload(self._flops)
        sums = self._new_sums()
        reset_peak_memory(device)
        with self._clock.measure(Part.CREDIT):
            groups = [extract_trajectories(tree.scored, version) for tree in trees]
        if self._reference is not None:
            groups = self._add_logprobs(groups, Work.READ_REFERENCE, "reference_logprobs")
        self._credit = self.values.credit
        self._assigner = CreditAssigner(self._credit, self.own)
        if self.values.is_active:
            trees = self._inform(trees, ties, version, sums)
        with self._clock.measure(Part.CREDIT):
            groups = self._assign_credits(trees, groups, sums)
        if self._settings.updates_per_step > 1:  # π_old is the policy before the first update
            groups = self._add_logprobs(groups, Work.READ_POLICY, "old_logprobs")
        norms = [self._update(minibatch, lr, sums) for minibatch in self._split(groups, random.Random(seed))]
        self._process_group.send_all(Share(Work.SUM).pack())
        return self._sum_up(sums, norms, lr)

    def _new_sums(self) -> StepSums:
        return StepSums(self._process_group.device, self._objective.own_terms)

    def close(self) -> None:
        """Ends what computes credit of the user's own."""
        self.own.close()

    def follow(self) -> None:
        """Another rank's part of rank 0's `step` or `engine_gap`."""
        device = self._process_group.device
        sums, self._clock = self._new_sums(), StepClock(device)
        reset_peak_memory(device)
        while (share := Share.unpack(self._process_group.receive())).work is not Work.END:
            try:
                match share.work:
                    case Work.TRAIN:
                        sums.add_passes(self._accumulate(share))
                        self._apply_gradients(share.learning_rate)
                    case Work.READ_POLICY | Work.READ_REFERENCE:
                        self._process_group.send(0, self._forward(share).tobytes())
                    case Work.READ_STATES:
                        self._process_group.send(0, self._states(share).tobytes())
                    case Work.SUM:
                        self._sum_up(sums, [], 0.0)
                        return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise self._budget.refusal(share, str(error)) from error

    def engine_gap(self, scored: Sequence[ScoredTree], version: WeightVersion) -> float | None:
        """Mean |learner's − engine's log-probability| over the tokens that the present weights, `version`, sampled."""
        trajectories = [one for tree in scored for one in extract_trajectories(tree, version)]
        logprobs = self._read(Work.READ_POLICY, trajectories)
        self._process_group.send_all(Share(Work.END).pack())
        gaps = [
            np.abs(ours - one.engine_logprobs)[one.is_current] for ours, one in zip(logprobs, trajectories, strict=True)
        ]
        return float(np.concatenate(gaps).mean()) if any(map(len, gaps)) else None

    def _add_logprobs(self, groups: list[Group], work: Work, field: str) -> list[Group]:
        """The trajectories, with what the model that `work` reads gives to every token in the field; answers that are
        not trained on are read only where a prior needs them."""
        reads_all = not self._settings.mask_truncated or (work is Work.READ_REFERENCE and self._credit.reads_reference)
        found: Iterator[Any] = iter(
            self._read(work, [one for group in groups for one in group if reads_all or not one.is_cut])
        )
        return [
            [replace(one, **{field: next(found)}) if reads_all or not one.is_cut else one for one in group]
            for group in groups
        ]

    def _inform(
        self, trees: Sequence[BuiltTree], ties: Sequence[BuiltTree], version: WeightVersion, sums: StepSums
    ) -> Sequence[BuiltTree]:
        """The trees with their priors, as values knew them before they learnt from these trees and from `ties`."""
        every = [*trees, *ties]
        states = self._read_states(every, version) if self.values.reads_states else []
        with self._clock.measure(Part.CREDIT):
            informed = self.values.inform(every, states)
            sums.values = self.values.learn(informed, states, len(trees))
        return informed[: len(trees)]

    def _read_states(self, trees: Sequence[BuiltTree], version: WeightVersion) -> list[Floats]:
        """The policy's hidden state [N, D] at the end of every node of each tree; empty where no draw counts."""
        reading = [[*reading_trajectories(tree, extract_trajectories(tree.scored, version))] for tree in trees]
        trajectories = [one for of_tree in reading for one, _ in of_tree]
        places = [one.places for one in trajectories if one.places is not None]
        found = iter(self._read(Work.READ_STATES, trajectories, [*map(len, places)]) if trajectories else [])
        states = []
        for tree, of_tree in zip(trees, reading, strict=True):
            parts = [(node_ids, next(found)) for _, node_ids in of_tree]
            own = np.zeros((len(tree.nodes.nodes) if parts else 0, parts[0][1].shape[1] if parts else 0), np.float32)
            for node_ids, part in parts:
                own[node_ids] = part
            states.append(own)
        return states

    def _assign_credits(self, trees: Sequence[BuiltTree], groups: list[Group], sums: StepSums) -> list[Group]:
        """The trajectories with a reward, with the advantage and weight of every token."""
        share, penalty = self._settings.overlong_share, self._settings.overlong_penalty
        shaped = [penalize_overlong(tree.nodes, self._max_answer_tokens, share, penalty) for tree in trees]
        credited, failures = [], []
        for tree, with_rewards, group in zip(trees, shaped, groups, strict=True):
            reference = _reference_logprobs(tree, group) if self._credit.reads_reference else None
            side = SideInformation(tree.nodes, reference, tree.scored.task.growth.sampler.initial_draws)
            try:
                of_nodes, weights = self._assigner.assign(with_rewards, side)
            except CreditFailed as error:
                failures.append(str(error))
                log.error("credit_failed", task=tree.scored.task.id, reason=str(error))
                continue
            sums.add_advantages(of_nodes)
            with_credit = assign_credit(group, with_rewards, weights, of_nodes)
            credited.append(mask_likely(with_credit, self._settings.mask_likely))
            if self._settings.mask_likely is not None:
                sums.likely += share_masked(with_credit, credited[-1])
        sums.credit_failures += len(failures)
        if failures and not credited:
            raise InvalidInput(f"no tree of the step has credit ({len(failures)} failed), the last: {failures[-1]}")
        if not self._credit.compares_steps:
            return credited
        rewards = [reward for tree in shaped for reward in tree.rewards]
        return scale_advantages(credited, *self._assigner.step_scale(rewards, count_advantages(credited)))

    def _split(self, groups: list[Group], rng: random.Random) -> Iterator[list[Trajectory]]:
        """The trajectories of each optimizer step, their weights normalized: every epoch shuffles the trees into
        `minibatches` of equal size (±1)."""
        settings, num_parts = self._settings, self._settings.minibatches
        for _ in range(settings.epochs):
            order = rng.sample(groups, len(groups)) if settings.updates_per_step > 1 else groups
            for part in range(num_parts):
                minibatch = normalize_weights(
                    [one for group in order[part::num_parts] for one in group],
                    settings.loss_normalization,
                    self._max_answer_tokens,
                    mask_truncated=settings.mask_truncated,
                )
                if minibatch:
                    yield minibatch

    def _update(self, minibatch: Sequence[Trajectory], lr: float, sums: StepSums) -> float | None:
        """One optimizer step: the gradient's norm, None where it was not finite and nothing changed."""
        of_passes, _ = self._compute(Work.TRAIN, minibatch, self._accumulate, lr)
        sums.add_passes(of_passes)
        return self._apply_gradients(lr)

    def _accumulate(self, share: Share) -> StepSums:
        """This rank's passes of an optimizer step, which leave their gradients. Collective."""
        sums, size = self._new_sums(), self._process_group.size
        for number, micro_batch in enumerate(self._passes(share), start=1):
            is_last, counts = number == share.num_passes, number <= len(share.micro_batches)
            self._process_group.sync_gradients(self._policy.model.module, when=is_last or self._syncs_every_pass)
            with self._clock.measure(Part.FORWARD):
                loss = self._loss(micro_batch, sums) if counts else self._no_loss(micro_batch)
            with self._clock.measure(Part.BACKWARD):
                # ranks' gradients are averaged, but have to be summed
                (loss * size).backward()  # type: ignore[no-untyped-call]
        return sums

    def _no_loss(self, batch: MicroBatch) -> Tensor:
        """0, by way of every weight: of a pass on `NOTHING`, which terms of the user's own need not understand."""
        return 0.0 * self._policy.model.statistics(batch.rows).logprobs_RS.sum()

    def _apply_gradients(self, learning_rate: float) -> float | None:
        try:
            with self._clock.measure(Part.OPTIMIZER):
                return self._policy.apply_gradients(learning_rate)
        except (RuntimeError, MemoryError) as error:  # weights may be half updated: not to be tried again
            if not is_out_of_memory(error):
                raise
            raise InvalidInput(
                f"AdamW ran out of memory ({error}): it keeps 8 bytes for each parameter that it trains; set lora, or "
                "train on more devices"
            ) from error

    def _sum_up(self, sums: StepSums, norms: Sequence[float | None], lr: float) -> Update:
        """The figures of a step. Collective."""
        sums.peak_memory_bytes = peak_memory_bytes(self._process_group.device)
        sums.memory_retries = self._budget.take_retries()
        return Update.of(sums, self._process_group, norms, lr, self._clock, self._workload)

    def _loss(self, batch: MicroBatch, sums: StepSums) -> Tensor:
        """Σ w·(min(π_old/μ, C)·surrogate + terms) over the answers' tokens, and what balances routers."""
        statistics = self._policy.model.statistics(batch.rows)
        logprobs_BT = batch.of_answers(statistics.logprobs_RS)
        entropies_BT = batch.of_answers(statistics.entropies_RS)
        tokens = self._objective.of_tokens(logprobs_BT, entropies_BT, batch)
        loss = (batch.weights_BT * tokens.loss_BT).sum()
        if statistics.router_loss is not None:  # O-12
            router_loss = batch.weights_BT.sum() * statistics.router_loss
            loss = loss + self._settings.router_coef * router_loss
            sums.add(router_loss=router_loss.detach())
        present_BT = logprobs_BT.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        sums.add_ratios(tokens.ratios_BT)
        sums.add(
            tokens=batch.is_sampled_BT,
            loss=loss.detach(),
            entropy=entropies_BT.detach().where(batch.is_sampled_BT, 0.0),
            clipped=tokens.is_clipped_BT,
            masked=tokens.is_masked_BT,
            corrections=tokens.corrections_BT,
            capped=tokens.is_capped_BT,
            gap=(present_BT - batch.engine_logprobs_BT).abs().where(batch.is_current_BT, 0.0),
            current_tokens=batch.is_current_BT,
        )
        if tokens.kl_BT is not None:
            sums.add(kl=tokens.kl_BT)
        sums.add(**dict(zip(self._objective.own_terms, tokens.own_terms_BT, strict=True)))
        return loss

    def _compute(
        self, work: Work, trajectories: Sequence[Trajectory], passes: Callable[[Share], T], lr: float = 0.0
    ) -> tuple[T, list[list[int]]]:
        """What `passes` makes of this rank's share, and which trajectories each rank has. Where memory runs out, all is
        done again in passes of half the size."""
        while True:
            packed = self._pack(trajectories)
            share, indices = self._deal(work, packed, trajectories, lr)
            try:
                result = passes(share)
                if work is Work.TRAIN:
                    self._workload.add_training(packed, trajectories)
                else:
                    self._workload.add_reading(packed)
                return result, indices
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                shortage = str(error)
            self._policy.clear_gradients()  # here, where the error no longer holds what the pass had computed
            release_memory(self._process_group.device)
            longest = max(len(one.prompt_ids) + len(one.token_ids) for one in trajectories)
            if self._process_group.size > 1:  # the others wait in the midst of the pass
                raise self._budget.refusal(share, shortage)
            self._budget.shrink(share, longest, shortage)

    def _pack(self, trajectories: Sequence[Trajectory]) -> list[list[PackedRow]]:
        """The rows of every pass."""
        model = self._policy.model
        layout = model.layout if self._settings.share_prefixes else Layout.APART
        with self._clock.measure(Part.PACK):
            budget = self._budget.num_tokens or default_budget(trajectories)
            return pack(trajectories, budget, layout, model.window, model.cost)

    def _deal(
        self, work: Work, packed: Sequence[Sequence[PackedRow]], trajectories: Sequence[Trajectory], lr: float
    ) -> tuple[Share, list[list[int]]]:
        """Sends every other rank its share; returns this rank's, and which trajectories each rank has."""
        with self._clock.measure(Part.PACK):
            costs = [self._policy.model.cost.of_tries([row.trie for row in rows]) for rows in packed]
            hands = deal(costs, self._process_group.size)

            def share_of(rank: int) -> Share:
                micro_batches = tuple(MicroBatch.collate(packed[number], trajectories) for number in hands[rank])
                return Share(work, micro_batches, max(map(len, hands)), lr)

            for rank in range(1, self._process_group.size):
                self._process_group.send(rank, share_of(rank).pack())
            indices = [
                [index for number in hand for row in packed[number] for index in row.columns_of] for hand in hands
            ]
            return share_of(0), indices

    def _read(self, work: Work, trajectories: Sequence[Trajectory], sizes: Sequence[int] | None = None) -> list[Floats]:
        """What a model says of each answer: the log-probabilities of its tokens, or as many rows of something else as
        `sizes` says."""
        passes = self._states if work is Work.READ_STATES else self._forward
        own, indices_of_ranks = self._compute(work, trajectories, passes)
        sizes = sizes or [len(one.token_ids) for one in trajectories]
        sent = [self._process_group.receive(rank) if rank else own.tobytes() for rank in range(len(indices_of_ranks))]
        rows = np.frombuffer(b"".join(sent), np.float32)
        if work is Work.READ_STATES:
            rows = rows.reshape(sum(sizes), -1)
        order = [index for indices in indices_of_ranks for index in indices]
        ends = np.cumsum([sizes[index] for index in order])
        found = dict(zip(order, np.split(rows, ends[:-1]), strict=False))
        return [found[index] for index in range(len(trajectories))]

    @torch.no_grad()
    def _forward(self, share: Share) -> Floats:
        """The log-probabilities of all answers' tokens in this rank's micro-batches, one after another. Collective."""
        model = self._reference if share.work is Work.READ_REFERENCE else self._policy.model
        if model is None:
            raise ValueError("no reference model was loaded")
        found = [np.zeros(0, np.float32)]
        with model.on_device():
            for micro_batch in self._passes(share):
                with self._clock.measure(Part.FORWARD):
                    logprobs_BT = micro_batch.of_answers(model.statistics(micro_batch.rows).logprobs_RS)
                found.append(logprobs_BT[micro_batch.is_answer_BT].float().cpu().numpy())
        return np.concatenate(found[: 1 + len(share.micro_batches)])

    @torch.no_grad()
    def _states(self, share: Share) -> Floats:
        """The policy's hidden states at all places of this rank's micro-batches, one after another. Collective."""
        found = [np.zeros(0, np.float32)]
        for micro_batch in self._passes(share):
            places_N = micro_batch.cell_BT.flatten()[:0] if micro_batch.places_N is None else micro_batch.places_N
            with self._clock.measure(Part.FORWARD):
                states_ND = self._policy.model.hidden_states(micro_batch.rows, places_N)
            found.append(states_ND.cpu().numpy().flatten())
        return np.concatenate(found[: 1 + len(share.micro_batches)])

    def _passes(self, share: Share) -> Iterator[MicroBatch]:
        """The micro-batch of every pass, on the device; `NOTHING` where this rank has none left."""
        fillers = repeat(NOTHING, share.num_passes - len(share.micro_batches))
        return (one.to(self._process_group.device) for one in chain(share.micro_batches, fillers))


def _reference_logprobs(tree: BuiltTree, group: Group) -> list[list[float]]:
    """log π_ref of every draw's new tokens."""
    return [
        [] if one.reference_logprobs is None else one.reference_logprobs[draw.cut :].tolist()
        for draw, one in zip(tree.scored.draws, group, strict=True)
    ]
