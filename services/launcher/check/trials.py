"""Tries parts of the user's own on small trees and tensors. It runs in a process that may be killed."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from services.learner.loss_terms import Clip, LossTerm, Surrogate, TokenTensors
from services.learner.own_credit import assign_checked, scale_checked
from shared.errors import IbtpoError, describe, place_of
from shared.plugins import NO_HURRY
from shared.tree.credit import Credit, SideInformation
from shared.tree.ib_score import IBSettings, ib_scores
from shared.tree.node import Tree
from shared.tree.sample_trees import Carried, grow_sample, sample_trees
from shared.tree.samplers import Sampler, prepare_sampler
from shared.tree.values import ValueEstimator, node_values

_OUTSIDE = 1e-6
_BATCHES = (((5, 3, 4), True, "on a batch of three answers"), ((2,), False, "on a batch of one answer"))
"""The lengths of a batch's answers, whether every run has such a batch, and what it is."""


@dataclass(slots=True)
class Trial:
    """What a part did."""

    failed: str = ""
    """Why no run can go well with it; empty if one may."""
    warnings: list[str] = field(default_factory=list)

    def without(self, prefix: str) -> "Trial":
        """The same, said without the prefix."""
        return Trial(self.failed.removeprefix(prefix), [one.removeprefix(prefix) for one in self.warnings])

    def attempt(self, work: Callable[[], Any], on: str, *, is_usual: bool = True) -> Any:
        """What the work returns; None where it fails, or something failed before, of which the reason is kept."""
        if self.failed:
            return None
        try:
            return work()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            said = f"{_reason(error)}, {on}"
            if not is_usual:
                self.warnings.append(said)
            else:
                self.failed, self.warnings = said, []
        return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run gives its parts."""

    carried: Carried
    max_tokens: int
    merges: bool
    bytes_of_token: Sequence[bytes]
    reads_reference: bool
    clip: Clip


def try_sampler(sampler: Sampler, given: Surroundings) -> Trial:
    """Grows small trees with it."""
    trial = Trial()

    def grow(*, judges: bool = True) -> Any:
        prepared = prepare_sampler(sampler, given.bytes_of_token, given.max_tokens)
        bool(prepared.asks_entropies)  # as every request to the engine asks it
        return grow_sample(prepared, given.carried, given.max_tokens, merges=given.merges, judges=judges)

    once = trial.attempt(grow, "in the first rounds of a tree of random answers")
    if trial.failed:
        return trial
    if grow() != once:
        trial.warnings.append("chooses otherwise for the same tree and rng: take chance from rng alone")
    trial.attempt(lambda: grow(judges=False), "on a tree of which no draw is judged", is_usual=False)
    return trial


def try_values(estimator: ValueEstimator, given: Surroundings) -> Trial:
    """Values the nodes of small trees, and scores these by it."""
    trial, outside = Trial(), 0
    for says, tree, is_usual in sample_trees(given.carried, merges=given.merges):
        values = trial.attempt(partial(_scored_values, tree, estimator), says, is_usual=is_usual)
        outside += any(not -_OUTSIDE <= value <= 1 + _OUTSIDE for value in values or ())
    if outside and not trial.failed:
        trial.warnings.append("gives values outside [0, 1], and p̂ is a probability: the IB-Score reads them as such")
    return trial


def _scored_values(tree: Tree, estimator: ValueEstimator) -> Sequence[float]:
    values = node_values(tree, estimator)
    ib_scores(tree, IBSettings(values=estimator))
    return values


def try_credit(credit: Credit, given: Surroundings) -> Trial:
    """Assigns the credit of small trees, and scales it over them."""
    trial = Trial()
    rewards: list[float] = []
    counts: dict[float, float] = defaultdict(float)
    for says, tree, is_usual in sample_trees(given.carried, merges=given.merges):
        found = trial.attempt(partial(_assign, credit, tree, given), says, is_usual=is_usual)
        if found is not None:
            advantages, weights = found
            rewards += tree.rewards
            for node, advantage, weight in zip(tree.nodes, advantages.of_nodes, weights, strict=True):
                counts[advantage] += weight * (node.end - node.start)
    if not trial.failed and not any(counts):
        trial.warnings.append("gives every node of every small tree the advantage 0, of which nothing is learnt")
    if not trial.failed and credit.compares_steps:
        trial.attempt(lambda: scale_checked(credit, rewards, counts), "in step_scale, of all trees together")
    return trial


def _assign(credit: Credit, tree: Tree, given: Surroundings) -> Any:
    rng, reads = random.Random(0), credit.reads_reference
    reference = [[-2.0 * rng.random() for _ in draw.token_ids] for draw in tree.draws] if reads else None
    return assign_checked(credit, tree, SideInformation(tree, reference, num_first=3))


@dataclass(frozen=True, slots=True)
class Imported:
    """A module by its name, and the module itself in the process that it is sent to: that imports it as it begins,
    before any deadline."""

    name: str

    def __reduce__(self) -> Any:
        return import_module, (self.name,)


def try_term(term: LossTerm | Surrogate, kind: str, given: Surroundings, torch: Any, own_terms: Any) -> Trial:
    """Computes the loss of small batches with it, and its gradient. The last two are modules, `Imported`."""
    torch.set_num_threads(1)
    trial, checked = Trial(), own_terms.CheckedTerm(term, kind, NO_HURRY)

    def compute(tokens: TokenTensors) -> bool:
        """Whether there is a gradient."""
        loss = checked.loss(tokens).sum()
        if Surrogate in type(term).__mro__:
            checked.is_clipped(tokens)
        if not loss.requires_grad:
            return False
        read = (tokens.logprobs_BT, tokens.entropies_BT)
        gradients = torch.autograd.grad(loss, read, allow_unused=True)
        if not all(one is None or one.isfinite().all() for one in gradients):
            raise ValueError("its gradient is NaN or infinite")
        return True

    for lengths, is_usual, says in _BATCHES:
        tokens = sample_tokens(lengths, given, torch)
        has_gradient = trial.attempt(partial(compute, tokens), says, is_usual=is_usual)
        if has_gradient is False and is_usual:
            trial.warnings.append("gives a loss without a gradient: nothing is learnt by it")
    return trial


def sample_tokens(lengths: Sequence[int], given: Surroundings, torch: Any) -> TokenTensors:
    """A batch of answers of these lengths, with gradients: the policy has moved a little from the one that sampled."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths))
    is_answer_BT = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]

    def random_BT() -> Any:
        return torch.rand(shape, generator=generator).where(is_answer_BT, 0.0)

    old_BT = -2.0 * random_BT()
    logprobs_BT = (old_BT - 0.1 * random_BT()).requires_grad_()
    return TokenTensors(
        logprobs_BT=logprobs_BT,
        entropies_BT=random_BT().requires_grad_(),
        ratios_BT=(logprobs_BT - old_BT).exp(),
        old_logprobs_BT=old_BT,
        engine_logprobs_BT=old_BT.clone(),
        sampling_logprobs_BT=old_BT.clone(),
        reference_logprobs_BT=old_BT - 0.05 * random_BT() if given.reads_reference else None,
        advantages_BT=(random_BT() - 0.5).where(is_answer_BT, 0.0),
        corrections_BT=is_answer_BT.float(),
        is_answer_BT=is_answer_BT,
        clip=given.clip,
    )


def _reason(error: BaseException) -> str:
    """What our checks say as it stands; of the part's own errors also what they are and where they came from."""
    is_ours = isinstance(error, IbtpoError) or (isinstance(error, ValueError) and not place_of(error))
    return " ".join(str(error).split()) if is_ours else describe(error)
