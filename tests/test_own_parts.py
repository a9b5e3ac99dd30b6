"""The examples of own parts: small, and each does what its page says."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.own_credit import MedianCredit
from examples.own_loss_term import TargetEntropy
from examples.own_sampler import VarianceSampler
from examples.own_values import LaplaceValues
from services.learner.objective_config import ObjectiveConfig
from services.learner.training.objective import Objective
from shared.kinds import own_code, packages_of
from shared.tree.credit import CREDITS, assign_advantages
from shared.tree.node import build_tree
from shared.tree.samplers import SAMPLERS, choose_branches
from shared.tree.values import VALUES, node_values
from tests.learner.synthetic import draws
from tests.learner.training.test_objective import micro_batch, policy_entropies, policy_logprobs

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").glob("own_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40


def test_the_page_shows_each_example() -> None:
    page = (ROOT / "docs" / "own-parts.md").read_text(encoding="utf-8")
    assert all(f"examples/{path.name}" in page for path in FILES)


@given(st.integers(0, 1000), st.integers(1, 10))
def test_the_sampler_branches_where_outcomes_vary_most(seed: int, round_number: int) -> None:
    tree = build_tree(draws(random.Random(seed)))
    sampler = VarianceSampler(rounds=64)
    branches, _ = choose_branches(sampler, tree, round_number, random.Random(seed))
    values = node_values(tree, VALUES.make("counts"))
    best = max((values[n] * (1 - values[n]) for n, node in enumerate(tree.nodes) if node.num_draws), default=None)
    chosen = [
        n for n, node in enumerate(tree.nodes) for one in branches if (node.draw, node.end) == (one.parent, one.cut)
    ]
    assert len(branches) == (best is not None)
    assert all(values[n] * (1 - values[n]) == best for n in chosen)
    assert not choose_branches(VarianceSampler(rounds=1), tree, 2, random.Random(0))[0]


@given(st.integers(0, 1000))
def test_the_credit_compares_with_the_median(seed: int) -> None:
    tree = build_tree(draws(random.Random(seed)))
    found = assign_advantages(MedianCredit(scale=2.0), tree)
    rewards = sorted(tree.rewards)
    middle = (rewards[(len(rewards) - 1) // 2] + rewards[len(rewards) // 2]) / 2 if rewards else 0.0
    for draw_id, path in enumerate(found.on_paths(tree)):
        reward = tree.reward_of_draw[draw_id]
        assert reward is None or path == pytest.approx([2.0 * (reward - middle)] * len(path)) or not tree.is_mixed


@given(st.integers(0, 1000))
def test_the_values_are_counts_with_two_more_answers(seed: int) -> None:
    tree = build_tree(draws(random.Random(seed)))
    counts, smoothed = node_values(tree, VALUES.make("counts")), node_values(tree, LaplaceValues())
    for p, q, node in zip(counts, smoothed, tree.nodes, strict=True):
        assert q == pytest.approx((p * node.num_leaves + 1) / (node.num_leaves + 2)) or len(tree.nodes) == 1


def test_the_term_pulls_entropy_to_its_target() -> None:
    batch = micro_batch(1)
    entropies_BT = policy_entropies(batch, 8).requires_grad_()
    config = ObjectiveConfig(kl_coef=0.0, terms=(TargetEntropy(coef=0.5, target=0.3),))
    (own_BT,) = Objective(config).of_tokens(policy_logprobs(batch, 2), entropies_BT, batch).own_terms_BT
    assert torch.allclose(own_BT, (0.5 * (entropies_BT - 0.3) ** 2).where(batch.is_answer_BT, 0.0))


def test_they_are_named_by_import_path_and_travel_with_a_digest_of_their_code() -> None:
    sampler = SAMPLERS.make({"kind": "examples.own_sampler:VarianceSampler", "threshold": 0.1})
    assert sampler == VarianceSampler(threshold=0.1)
    assert SAMPLERS.make(SAMPLERS.dump(sampler)) == sampler
    assert packages_of([sampler]) == ("examples",)
    assert [*own_code(sampler)] == ["examples.own_sampler"]
    credit = CREDITS.make({"kind": "ibtpo", "values": "examples.own_values:LaplaceValues"})
    assert packages_of([credit]) == ("examples",)
    assert packages_of([CREDITS.make("grpo"), SAMPLERS.make("ib")]) == ()
