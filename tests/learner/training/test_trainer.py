"""A step of training against slow definitions of the whole objective."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from services.learner.config import LearnerConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows
from services.learner.training.clock import Part
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import extract_trajectories
from services.learner.training.update import StepSums, Update
from shared.protocol.tree import ScoredTree
from shared.tree.credit import CREDITS, IBTPOCredit, NodeWeight, Prior, assign_advantages
from shared.tree.draw import Draw, Finish, WeightVersion, trajectory
from tests.learner.conftest import Configure
from tests.learner.policies import VOCAB_SIZE
from tests.learner.synthetic import V0, build_all, draws, scored, task, trie_of, with_logprobs

CURRENT = WeightVersion(1, 1)


def exact(record: Sequence[Draw], prompt: Sequence[int], policy_dir: Path) -> tuple[Draw, ...]:
    """The draws with the policy's own log-probabilities, as an engine with the same weights has them."""
    model = LanguageModel.load(policy_dir, 1.0)
    found = []
    for number, draw in enumerate(record):
        rows = PrefixRows.collate([trie_of([*prompt, *trajectory(record, number)])])
        with torch.no_grad():
            found.append(model.statistics(rows).logprobs_RS[0, len(prompt) + draw.cut :].tolist())
    return with_logprobs(record, found)


def trees(seed: int, count: int = 3, num_branches: int = 3, **changes: Any) -> list[ScoredTree]:
    """Trees with mixed rewards."""
    rng = random.Random(seed)
    return [
        scored(task(number), draws(rng, 4, num_branches, rewards=(1.0, 0.0, 0.0), **changes)) for number in range(count)
    ]


def reference(config: LearnerConfig) -> LanguageModel:
    """The model that the run began with."""
    return LanguageModel.load(config.model, 1.0, is_frozen=True)


class Recorder:
    """A trainer whose optimizer only notes the gradients it was given."""

    def __init__(self, config: LearnerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy = Policy(config.model, config.growth.temperature, config.optimizer)
        self.gradients: list[dict[str, Tensor]] = []
        frozen = reference(config) if config.needs_reference else None
        self.trainer = Trainer(self.policy, frozen, config)
        monkeypatch.setattr(self.policy, "apply_gradients", self._note)

    def _note(self, learning_rate: float) -> float:
        module = self.policy.model.module
        self.gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
        module.zero_grad()
        return 1.0

    def step(self, batch: Sequence[ScoredTree]) -> Update:
        return self.trainer.step(build_all(batch), CURRENT, 1e-3, "seed")


def slow_grpo_gradients(policy_dir: Path, batch: Sequence[ScoredTree], cap: float) -> dict[str, Tensor]:
    """GRPO from its page: groups of independent answers, mean over tokens, then over answers; written anew."""
    model = AutoModelForCausalLM.from_pretrained(policy_dir).eval()
    num_answers = sum(len(tree.draws) for tree in batch)
    loss = torch.zeros(())
    for tree in batch:
        rewards = [draw.reward or 0.0 for draw in tree.draws]
        mean = sum(rewards) / len(rewards)
        std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
        for draw, reward in zip(tree.draws, rewards, strict=True):
            prompt = tree.task.prompt_ids
            ids = torch.tensor([[*prompt, *draw.token_ids]])
            logits = model(ids).logits[0]
            for at, token in enumerate(draw.token_ids):
                logprob = torch.log_softmax(logits[len(prompt) + at - 1], -1)[token]
                correction = min(math.exp(logprob.item() - draw.logprobs[at]), cap)
                ratio = (logprob - logprob.detach()).exp()
                advantage = (reward - mean) / (std + 1e-6)
                loss = loss - correction * ratio * advantage / len(draw.token_ids) / num_answers
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], atol=tolerance), name


@pytest.mark.parametrize("advantage", ["grpo", {"lam": 0.0}])
def test_on_independent_answers_the_step_is_grpo(
    advantage: Any, configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(advantage=advantage, objective={"kl_coef": 0.0, "micro_batch_tokens": 60})
    batch = trees(1, num_branches=0)
    recorder = Recorder(config, monkeypatch)
    recorder.step(batch)
    assert_equal(recorder.gradients[0], slow_grpo_gradients(policy_dir, batch, config.objective.tis_cap))


def test_on_a_tree_extracted_trajectories_are_trained_on(
    configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPO over the answers of a tree is GRPO over independent answers with the same tokens and log-probabilities."""
    config = configure(advantage="grpo", objective={"kl_coef": 0.0})
    batch = trees(2)
    flat = []
    for tree in batch:
        spelled = []
        for number, draw in enumerate(tree.draws):
            above: tuple[float, ...] = ()
            if draw.parent is not None:
                above = spelled[draw.parent].logprobs[: draw.cut]
            ids = trajectory(tree.draws, number)
            spelled.append(
                replace(
                    draw,
                    parent=None,
                    cut=0,
                    token_ids=ids,
                    logprobs=above + draw.logprobs,
                    step_ends=(len(ids),),
                    spans=(replace(draw.spans[0], start=0, end=len(ids)),),
                )
            )
        flat.append(scored(tree.task, spelled))
    on_tree, on_flat = Recorder(config, monkeypatch), Recorder(config, monkeypatch)
    on_tree.step(batch)
    on_flat.step(flat)
    assert_equal(on_tree.gradients[0], on_flat.gradients[0])
    assert_equal(on_tree.gradients[0], slow_grpo_gradients(policy_dir, flat, config.objective.tis_cap))


@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("micro_batch_tokens", [1, 40, 10_000])
def test_neither_the_split_into_micro_batches_nor_shared_prefixes_change_anything(
    micro_batch_tokens: int, share_prefixes: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = trees(3)
    whole = Recorder(configure(), monkeypatch)
    objective = {"micro_batch_tokens": micro_batch_tokens, "share_prefixes": share_prefixes}
    split = Recorder(configure(objective=objective), monkeypatch)
    first, second = whole.step(batch), split.step(batch)
    assert_equal(whole.gradients[0], split.gradients[0])
    assert first.loss == pytest.approx(second.loss, abs=1e-6)
    assert first.entropy == pytest.approx(second.entropy)


@pytest.mark.parametrize("ratio", ["sequence", "sequence-token"])
def test_a_sequences_ratio_is_its_whole_paths_however_it_was_computed(
    ratio: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where trees share prefixes, and where a tree is split."""
    batch = trees(26)
    objective = {"ratio": ratio, "old_policy": "engine", "tis_level": "off", "clip_low": 0.99, "clip_high": 9.0}
    whole = Recorder(configure(objective=objective | {"share_prefixes": False}), monkeypatch)
    expected = whole.step(batch)
    for micro_batch_tokens in (1, 40, 10_000):
        shared = Recorder(configure(objective=objective | {"micro_batch_tokens": micro_batch_tokens}), monkeypatch)
        found = shared.step(batch)
        assert_equal(whole.gradients[0], shared.gradients[0])
        assert found.loss == pytest.approx(expected.loss, abs=1e-6)
        assert found.ratio_max == pytest.approx(expected.ratio_max)
        assert found.ratio_max != pytest.approx(1.0)


def test_the_trees_of_a_step_may_come_in_any_order(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = trees(4)
    forward, backward = Recorder(configure(), monkeypatch), Recorder(configure(), monkeypatch)
    forward.step(batch)
    backward.step(batch[::-1])
    assert_equal(forward.gradients[0], backward.gradients[0])


def test_the_gap_to_an_engine_with_the_same_weights_is_nothing(configure: Configure, policy_dir: Path) -> None:
    config = configure()
    policy = Policy(policy_dir, 1.0, config.optimizer)
    record = exact(draws(random.Random(5), versions=(V0, CURRENT), rewards=(0, 1)), task().prompt_ids, policy_dir)
    trainer = Trainer(policy, reference(config), config)
    assert trainer.engine_gap([scored(task(), record)], CURRENT) == pytest.approx(0.0, abs=1e-5)
    update = trainer.step(build_all([scored(task(), record)]), CURRENT, 1e-3, "")
    assert update.engine_gap == pytest.approx(0.0, abs=1e-5)
    assert update.kl == pytest.approx(0.0, abs=1e-6)
    assert update.applied == 1


def test_the_gap_counts_tokens_of_the_present_weights_alone(configure: Configure, policy_dir: Path) -> None:
    policy, config = Policy(policy_dir, 1.0, configure().optimizer), configure()
    trainer = Trainer(policy, reference(config), config)
    assert trainer.engine_gap(trees(6), CURRENT) is None
    assert trainer.engine_gap(trees(6, versions=(CURRENT,)), CURRENT) > 0.1
    assert trainer.step(build_all(trees(6)), CURRENT, 1e-3, "").engine_gap is None
    assert trainer.step(build_all(trees(6, versions=(CURRENT,))), CURRENT, 1e-3, "").engine_gap > 0.1


def test_the_second_pass_counts_ratios_from_where_the_step_began(
    configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights held still every pass has the gradient of the first."""
    recorder = Recorder(configure(objective={"epochs": 2}), monkeypatch)
    update = recorder.step(trees(7))
    assert len(recorder.gradients) == 2
    assert_equal(recorder.gradients[0], recorder.gradients[1])
    assert update.clip_share == 0.0
    assert update.ratio_max == pytest.approx(1.0)


def test_large_updates_are_clipped_in_later_passes(configure: Configure) -> None:
    config = configure(objective={"epochs": 4, "kl_coef": 0.0})
    policy = Policy(config.model, 1.0, config.optimizer)
    update = Trainer(policy, None, config).step(build_all(trees(8)), CURRENT, 0.05, "")
    assert update.applied == 4
    assert update.clip_share > 0.1
    assert update.ratio_max is not None
    assert update.ratio_max > 1 + config.objective.clip_high


def test_minibatches_take_every_tree_once_a_pass(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(configure(objective={"minibatches": 2, "loss_normalization": "constant"}), monkeypatch)
    alone = Recorder(configure(objective={"loss_normalization": "constant"}), monkeypatch)
    batch = trees(9, count=4, num_branches=0)
    recorder.step(batch)
    alone.step(batch)
    # the constant divisor counts the trajectories of a mini-batch, half as many each
    summed = {name: (one + recorder.gradients[1][name]) / 2 for name, one in recorder.gradients[0].items()}
    assert_equal(summed, alone.gradients[0])


def test_the_engines_own_logprobs_can_be_the_old_policy(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = {"old_policy": "engine", "kl_coef": 0.0, "clip_low": 0.99, "clip_high": 1e9}
    by_ratio = Recorder(configure(objective=objective), monkeypatch)
    by_weight = Recorder(configure(objective={"kl_coef": 0.0, "tis_cap": 1e9}), monkeypatch)
    batch = trees(10)
    # ratios within the clip: both are ρ·A, as a ratio or as a weight
    near = [
        tree.model_copy(
            update={"draws": exact(tree.draws, tree.task.prompt_ids, by_ratio.policy.model.module.name_or_path)}
        )
        for tree in batch
    ]
    by_ratio.step(near)
    by_weight.step(near)
    assert_equal(by_ratio.gradients[0], by_weight.gradients[0])


def test_a_tree_with_a_nan_changes_nothing(configure: Configure) -> None:
    config = configure()
    policy = Policy(config.model, 1.0, config.optimizer)
    before = {name: tensor.clone() for name, tensor in policy.model.module.state_dict().items()}
    batch = trees(11)
    record = batch[0].draws
    poisoned = with_logprobs(record, [(math.nan,) * len(draw.token_ids) for draw in record])
    update = Trainer(policy, reference(config), config).step(build_all([scored(task(), poisoned)]), CURRENT, 1e-3, "")
    assert (update.applied, update.refused) == (0, 1)
    assert update.loss is None, "a figure that is no number would end the run where it is sent on"
    assert all(torch.equal(before[name], now) for name, now in policy.model.module.state_dict().items())


def test_a_step_without_trees_is_no_update(configure: Configure) -> None:
    config = configure()
    policy = Policy(config.model, 1.0, config.optimizer)
    update = Trainer(policy, reference(config), config).step([], CURRENT, 1e-3, "")
    assert update.model_copy(update={"credit_seconds": 0.0, "pack_seconds": 0.0}) == Update(learning_rate=1e-3)


def test_a_step_tells_its_tokens_its_corrections_and_where_its_time_went(configure: Configure) -> None:
    config = configure(objective={"tis_cap": 0.5, "kl_coef": 0.1})
    policy = Policy(config.model, 1.0, config.optimizer)
    batch = trees(13)
    started = time.perf_counter()
    update = Trainer(policy, reference(config), config).step(build_all(batch), CURRENT, 1e-3, "")
    elapsed = time.perf_counter() - started
    parts = [getattr(update, f"{part}_seconds") for part in Part]
    assert min(parts) > 0
    assert sum(parts) < elapsed
    assert update.trained_tokens == sum(draw.end for tree in batch for draw in tree.draws)
    factors = np.minimum(0.5, np.exp([ratio for tree in batch for ratio in _log_ratios(tree, config.model)]))
    assert update.tis_weight == pytest.approx(factors.mean(), rel=1e-5)
    assert update.tis_capped_share == pytest.approx((factors == 0.5).mean())
    assert update.packing_share == 1.0
    assert update.model_tflops is not None
    assert update.model_tflops > 0
    assert update.mfu is None, "of CUDA devices only"
    assert update.peak_memory_gib is not None
    assert 0.05 < update.peak_memory_gib < 64


def _log_ratios(tree: ScoredTree, model: Path) -> list[float]:
    """log π_old/μ of every token of every trajectory."""
    prompt, record = tree.task.prompt_ids, tree.draws
    ours = exact(record, prompt, model)
    return [
        mine - its
        for number in range(len(record))
        for mine, its in zip(_logprobs_along(ours, number), _logprobs_along(record, number), strict=True)
    ]


def _logprobs_along(record: Sequence[Draw], number: int) -> list[float]:
    """Those of a trajectory's tokens, each from the draw that sampled it."""
    draw = record[number]
    before = [] if draw.parent is None else _logprobs_along(record, draw.parent)
    return [*before[: draw.cut], *draw.logprobs]


def test_draws_without_a_verdict_are_not_trained_on(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree,) = trees(12, count=1, num_branches=0)
    unjudged = scored(tree.task, [*tree.draws, replace(tree.draws[0], reward=None)])
    one, other = Recorder(configure(), monkeypatch), Recorder(configure(), monkeypatch)
    one.step([tree])
    other.step([unjudged])
    assert_equal(one.gradients[0], other.gradients[0])


def test_with_the_policy_itself_as_reference_the_prior_is_the_sampling_one(
    configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [
        tree.model_copy(update={"draws": exact(tree.draws, tree.task.prompt_ids, policy_dir)}) for tree in trees(13)
    ]
    by_sampling = Recorder(configure(advantage={"lam": 1.0}), monkeypatch)
    by_reference = Recorder(configure(advantage={"lam": 1.0, "prior": Prior.REFERENCE}), monkeypatch)
    by_sampling.step(batch)
    by_reference.step(batch)
    assert_equal(by_sampling.gradients[0], by_reference.gradients[0])


def test_a_step_shows_the_parts_of_the_advantage(configure: Configure) -> None:
    (tree,) = trees(18, count=1)
    parts = []
    for lam in (0.0, 0.1, 0.2):
        config = configure(advantage={"lam": lam})
        policy = Policy(config.model, 1.0, config.optimizer)
        parts.append(Trainer(policy, reference(config), config).step(build_all([tree]), CURRENT, 1e-3, ""))
    of_nodes = assign_advantages(IBTPOCredit(lam=0.0), tree.tree()).of_nodes[1:]
    assert parts[0].advantage_global == pytest.approx(sum(map(abs, of_nodes)) / len(of_nodes))
    assert parts[0].advantage_local == 0.0
    assert parts[1].advantage_global == parts[0].advantage_global
    assert parts[2].advantage_local == pytest.approx(2 * parts[1].advantage_local)


def test_kl_pulls_back_to_the_reference(configure: Configure) -> None:
    config = configure(objective={"kl_coef": 100.0})
    policy = Policy(config.model, 1.0, config.optimizer)
    batch = trees(14)
    far = Trainer(policy, None, configure(objective={"kl_coef": 0.0}))
    for _ in range(3):
        far.step(build_all(batch), CURRENT, 0.01, "")
    trainer = Trainer(policy, reference(config), config)
    divergences = [trainer.step(build_all(batch), CURRENT, 0.002, "").kl for _ in range(8)]
    assert divergences[0] > 0
    assert divergences[-1] < divergences[0]


def test_training_makes_rewarded_answers_likelier(configure: Configure) -> None:
    config = configure()
    policy = Policy(config.model, 1.0, config.optimizer)
    trainer = Trainer(policy, reference(config), config)
    record = draws(random.Random(15), 2, 0, rewards=(1.0, 0.0))
    each = [PrefixRows.collate([trie_of([*task().prompt_ids, *draw.token_ids])]) for draw in record]

    def likelihoods() -> list[float]:
        with torch.no_grad():
            return [policy.model.statistics(rows).logprobs_RS[0, 3:].mean().item() for rows in each]

    before = likelihoods()
    for _ in range(5):
        trainer.step(build_all([scored(task(), record)]), CURRENT, 0.005, "")
    right, wrong = (after - start for after, start in zip(likelihoods(), before, strict=True))
    assert right > 0 > wrong


def test_a_tree_has_a_signal_when_its_rewards_differ() -> None:
    rng = random.Random(16)
    equal, mixed = (scored(task(), draws(rng, 4, 0, rewards=rewards)) for rewards in ((1.0,), (1.0, 0.0)))
    assert not IBTPOCredit().has_signal(equal.rewards)
    assert IBTPOCredit().has_signal(mixed.rewards)
    assert IBTPOCredit(ib_on_ties=True).has_signal(equal.rewards)
    cut = scored(task(), [replace(draw, finish=Finish.LENGTH) for draw in mixed.draws])
    assert not IBTPOCredit().has_signal(cut.rewards)


def test_an_entropy_bonus_makes_the_policy_less_certain(configure: Configure) -> None:
    entropies = []
    for coef in (0.0, 1.0):
        config = configure(objective={"entropy_coef": coef, "kl_coef": 0.0})
        trainer = Trainer(Policy(config.model, 1.0, config.optimizer), None, config)
        updates = [trainer.step(build_all(trees(19)), CURRENT, 0.005, "") for _ in range(6)]
        entropies.append(updates[-1].entropy)
    without, with_bonus = entropies
    assert without is not None
    assert with_bonus is not None
    highest = math.log(VOCAB_SIZE)
    assert highest - with_bonus < 0.6 * (highest - without)


@pytest.mark.parametrize("is_by_logits", [False, True])
def test_the_entropy_pulls_by_its_own_gradient(
    is_by_logits: bool, configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the terms add to the gradient, written anew: −w·(c + d·A)·H of every token, in both ways to compute H."""
    batch = trees(20, num_branches=0)
    plain = {"kl_coef": 0.0, "loss_normalization": "token"}
    gradients = []
    for objective in (plain, plain | {"entropy_coef": 0.3, "entropy_advantage_coef": 0.2}):
        recorder = Recorder(configure(advantage="grpo", objective=objective), monkeypatch)
        if is_by_logits:
            monkeypatch.setattr(recorder.policy.model, "_forward", recorder.policy.model._by_logits)
        recorder.step(batch)
        gradients.append(recorder.gradients[0])
    added = {name: with_terms - gradients[0][name] for name, with_terms in gradients[1].items()}

    model = AutoModelForCausalLM.from_pretrained(policy_dir).eval()
    num_tokens = sum(len(draw.token_ids) for tree in batch for draw in tree.draws)
    loss = torch.zeros(())
    for tree in batch:
        mean = sum(tree.rewards) / len(tree.rewards)
        std = math.sqrt(sum((reward - mean) ** 2 for reward in tree.rewards) / len(tree.rewards))
        for draw, reward in zip(tree.draws, tree.rewards, strict=True):
            prompt = tree.task.prompt_ids
            logits = model(torch.tensor([[*prompt, *draw.token_ids]])).logits[0, len(prompt) - 1 : -1]
            entropies_T = torch.distributions.Categorical(logits=logits).entropy()
            loss = loss - (0.3 + 0.2 * (reward - mean) / (std + 1e-6)) * entropies_T.sum() / num_tokens
    loss.backward()
    assert_equal(added, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, 1e-6)


def test_overlong_answers_are_compared_by_what_is_left_of_their_reward(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPO on penalized rewards, written anew; A_IB, which is made of probabilities, stays as it is."""
    (tree,) = trees(21, count=1, num_branches=0)
    limit, share, penalty = 16, 0.8, 0.5
    rewards = [
        (draw.reward or 0.0) - penalty * max(draw.end - (1 - share) * limit, 0.0) / (share * limit)
        for draw in tree.draws
    ]
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    objective = {"overlong_share": share, "overlong_penalty": penalty}
    growth = {"sampler": "independent", "max_tokens": limit}
    for lam in (0.0, 0.1):
        config = configure(advantage={"kind": "ibtpo", "lam": lam}, objective=objective, growth=growth)
        recorder = Recorder(config, monkeypatch)
        groups = [extract_trajectories(tree, CURRENT)]
        ((*credited,),) = recorder.trainer._assign_credits(build_all([tree]), groups, StepSums())
        of_nodes = assign_advantages(config.advantage, tree.tree())
        global_part = of_nodes.global_part or of_nodes.of_nodes
        local = [of_nodes.of_nodes[leaf] - global_part[leaf] for leaf in tree.tree().leaf_of_draw if leaf]
        assert [one.advantages[-1] for one in credited] == pytest.approx(
            [(reward - mean) / (std + 1e-6) + extra for reward, extra in zip(rewards, local, strict=True)], rel=1e-5
        )


@pytest.mark.parametrize("advantage", ["grpo", "ibtpo"])
def test_where_ties_stay_a_penalty_parts_answers_of_equal_verdicts(
    advantage: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TRL does with such a reward function; without a penalty they stay with advantage 0."""
    (tree,) = trees(21, count=1, num_branches=0)
    right = scored(tree.task, [replace(draw, reward=1.0) for draw in tree.draws])
    growth = {"sampler": "independent", "max_tokens": 16}
    method = {"kind": advantage} | ({"lam": 0.0} if advantage == "ibtpo" else {})
    for penalty in ({}, {"overlong_share": 1.0}):
        config = configure(advantage=method, objective={"ties": "keep"} | penalty, growth=growth)
        assert config.trains_on(right.rewards)
        recorder = Recorder(config, monkeypatch)
        groups = [extract_trajectories(right, CURRENT)]
        ((*credited,),) = recorder.trainer._assign_credits(build_all([right]), groups, StepSums())
        lengths = [draw.end for draw in right.draws]
        mean = sum(lengths) / len(lengths)
        std = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
        expected = [(mean - length) / std if penalty else 0.0 for length in lengths]
        assert len({*lengths}) > 1
        assert [one.advantages[-1] for one in credited] == pytest.approx(expected, rel=1e-4)


def test_answers_that_the_limit_cut_can_be_left_out_of_the_loss(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree,) = trees(22, count=1, num_branches=0)
    record = [
        replace(draw, finish=Finish.LENGTH, reward=None) if nth == 1 else draw for nth, draw in enumerate(tree.draws)
    ]
    growth = {"sampler": "independent", "max_tokens": 16}
    plain = {"kl_coef": 0.0, "loss_normalization": "constant", "tis_level": "off"}
    recorders = [
        Recorder(configure(advantage="grpo", growth=growth, objective=plain | more), monkeypatch)
        for more in ({}, {"mask_truncated": True})
    ]
    updates = [recorder.step([scored(tree.task, record)]) for recorder in recorders]
    # what is missing is the cut answer's own part, in a group of which it is still a member
    policy = recorders[0].policy
    ids = [*tree.task.prompt_ids, *record[1].token_ids]
    rows = PrefixRows.collate([trie_of(ids)])
    rewards = [0.0 if nth == 1 else draw.reward or 0.0 for nth, draw in enumerate(record)]
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    logprobs = policy.model.statistics(rows).logprobs_RS[0, len(tree.task.prompt_ids) :]
    (-(0.0 - mean) / (std + 1e-6) * logprobs.sum() / (len(record) * 16)).backward()
    missing = {name: p.grad for name, p in policy.model.module.named_parameters() if p.grad is not None}
    with_all, without = (recorder.gradients[0] for recorder in recorders)
    assert_equal({name: with_all[name] - without[name] for name in with_all}, missing, 1e-6)
    assert [update.applied for update in updates] == [1, 1]


@pytest.mark.parametrize("prior", [Prior.SAMPLING, Prior.REFERENCE])
def test_answers_that_are_left_out_are_read_only_where_a_prior_needs_them(
    prior: Prior, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree,) = trees(27, count=1, num_branches=0)
    record = [replace(one, finish=Finish.LENGTH) if nth == 1 else one for nth, one in enumerate(tree.draws)]
    objective = {"mask_truncated": True, "epochs": 2}
    recorder = Recorder(configure(advantage={"prior": prior}, objective=objective), monkeypatch)
    numbers_read = []
    read = recorder.trainer._read

    def note(work: Any, trajectories: Any) -> Any:
        numbers_read.append(len(trajectories))
        return read(work, trajectories)

    monkeypatch.setattr(recorder.trainer, "_read", note)
    recorder.step([scored(tree.task, record)])
    assert numbers_read == [4 if prior is Prior.REFERENCE else 3, 3]  # of the reference, of the policy
    assert len(recorder.gradients) == 2


def test_a_step_of_cut_answers_alone_is_no_update_where_they_are_left_out(configure: Configure) -> None:
    config = configure(
        growth={"sampler": "independent", "max_tokens": 16, "judge_truncated": True},
        objective={"mask_truncated": True},
    )
    trainer = Trainer(Policy(config.model, 1.0, config.optimizer), reference(config), config)
    (tree,) = trees(23, count=1, num_branches=0)
    cut = scored(tree.task, [replace(draw, finish=Finish.LENGTH_JUDGED) for draw in tree.draws])
    assert trainer.step(build_all([cut]), CURRENT, 1e-3, "").applied == 0


def test_advantages_can_be_divided_by_the_deviation_of_the_whole_step(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [*trees(24, count=1, num_branches=0), *trees(25, count=2, num_branches=0)]
    rewards = [reward for tree in batch for reward in tree.rewards]
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    recorders = [
        Recorder(configure(advantage={"kind": "dr-grpo", "batch_std": scaled}, objective={"kl_coef": 0.0}), monkeypatch)
        for scaled in (False, True)
    ]
    plain, divided = ([recorder.step(batch), recorder.gradients[0]][1] for recorder in recorders)
    assert_equal({name: one / (std + 1e-6) for name, one in plain.items()}, divided)


@pytest.mark.parametrize("kind", list(NodeWeight))
def test_every_node_weight_trains(kind: NodeWeight, configure: Configure) -> None:
    config = configure(advantage={"node_weight": kind})
    policy = Policy(config.model, 1.0, config.optimizer)
    update = Trainer(policy, reference(config), config).step(build_all(trees(17)), CURRENT, 1e-3, "")
    assert update.applied == 1
    assert update.grad_norm is not None


@pytest.mark.parametrize("kind", CREDITS.names)
def test_every_credit_trains(kind: str, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(configure(advantage=kind), monkeypatch)
    if CREDITS.make(kind).compares_steps:
        assert abs(whitened_mean(recorder.trainer, trees(3))) < 1e-5
    assert recorder.step(trees(3)).refused == 0
    (gradients,) = recorder.gradients
    assert sum(float(one.abs().sum()) for one in gradients.values()) > 0.0


def whitened_mean(trainer: Trainer, batch: Sequence[ScoredTree]) -> float:
    """Of the advantages of a step's trained tokens, by their weights."""
    built = build_all(batch)
    groups = [extract_trajectories(tree.scored, CURRENT) for tree in built]
    credited = trainer._assign_credits(built, groups, StepSums())
    every = [one for group in credited for one in group]
    return float(
        np.average(
            np.concatenate([one.advantages for one in every]), weights=np.concatenate([one.weights for one in every])
        )
    )


def test_without_tokens_that_are_improbable_enough_nothing_is_learnt(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(configure(objective={"mask_likely": 1e-12, "kl_coef": 0.1}), monkeypatch)
    assert recorder.step(trees(3)).likely_share == 1.0
    (gradients,) = recorder.gradients
    assert all(float(one.abs().max()) == 0.0 for one in gradients.values())


def test_the_share_of_probable_tokens_is_that_of_those_left_out(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, bound = trees(3, num_branches=0), 0.3
    probs = [math.exp(logprob) for tree in batch for one in tree.draws for logprob in one.logprobs]
    update = Recorder(configure(objective={"mask_likely": bound}), monkeypatch).step(batch)
    assert update.likely_share == pytest.approx(sum(prob >= bound for prob in probs) / len(probs))
    assert Recorder(configure(), monkeypatch).step(batch).likely_share is None


def test_given_tokens_are_in_no_figure_of_a_step(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trees(3, num_branches=0)
    whole = [
        tree.model_copy(update={"draws": tuple(replace(one, given=((0, 1),)) for one in tree.draws)}) for tree in plain
    ]
    given_logprobs = [
        tree.model_copy(
            update={"draws": tuple(replace(one, logprobs=(-90.0, *one.logprobs[1:])) for one in tree.draws)}
        )
        for tree in whole
    ]
    recorder = Recorder(configure(objective={"kl_coef": 0.1, "ratio": "sequence"}), monkeypatch)
    update, same, of_all = (recorder.step(batch) for batch in (whole, given_logprobs, plain))
    num_answers = sum(len(tree.draws) for tree in plain)
    assert update.trained_tokens == of_all.trained_tokens - num_answers
    names = ("entropy", "kl", "loss", "tis_weight", "ratio_max", "advantage_local")
    assert [getattr(update, name) for name in names] == [getattr(same, name) for name in names]
    assert update.entropy != of_all.entropy
    assert_equal(recorder.gradients[0], recorder.gradients[1], 0.0)
