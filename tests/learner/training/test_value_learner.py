"""The value head and the calibrations of a learner: what they read, when they learn, and how they go on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from services.learner.model.policy import LanguageModel, Policy
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from services.learner.training.value_head import ValueHead
from services.learner.training.value_learner import ValueLearner, write_values
from services.learner.value_config import ValueHeadConfig
from shared.errors import InvalidInput
from shared.tree.credit import Advantages, BaselineCredit, Credit, IBTPOCredit, SideInformation
from shared.tree.draw import Draw, WeightVersion, trajectory
from shared.tree.node import Tree, build_tree
from shared.tree.values import PriorSource, WithPrior, node_values
from shared.tree.values.calibration import CalibrationFit
from shared.tree.values.prior import observations
from tests.learner.conftest import Configure
from tests.learner.synthetic import draws, scored, task

CURRENT = WeightVersion(1, 1)
HEAD = {"values": {"kind": "prior", "source": "head"}}
SCORED = {"sampler": "independent", "max_tokens": 16, "likelihood": {}}
LIKELIHOOD = {"advantage": {"values": {"kind": "prior", "fit": True}}, "growth": SCORED}


def a_tree(
    seed: int, *, merge: bool = False, unjudged: Sequence[int] = (), rewards: Sequence[float] = (1, 0, 0)
) -> BuiltTree:
    record = draws(random.Random(seed), 4, 3, rewards=rewards)
    record = tuple(replace(one, reward=None) if i in unjudged else one for i, one in enumerate(record))
    return BuiltTree(scored(task(seed, prompt_ids=(3, 4 + seed % 5)), record), build_tree(record, merge))


def with_likelihoods(tree: BuiltTree) -> BuiltTree:
    rng = random.Random(len(tree.scored.draws))
    record: list[Draw] = [
        replace(one, step_likelihoods=tuple(rng.random() for _ in one.step_ends)) for one in tree.scored.draws
    ]
    return BuiltTree(scored(tree.scored.task, record), build_tree(record))


def trainer(configure: Configure, **changes: Any) -> Trainer:
    config = configure(objective={"kl_coef": 0.0, "micro_batch_tokens": 40}, **changes)
    return Trainer(Policy(config.model, 1.0, config.optimizer), None, config)


def step(one: Trainer, trees: Sequence[BuiltTree], ties: Sequence[BuiltTree] = ()) -> Update:
    return one.step(trees, CURRENT, 1e-3, "seed", ties)


def test_states_are_the_policys_where_nodes_end(configure: Configure, policy_dir: Path) -> None:
    trees = [a_tree(1), a_tree(2, merge=True), a_tree(3, unjudged=(0, 2)), a_tree(4, unjudged=range(7))]
    model = AutoModelForCausalLM.from_pretrained(policy_dir).eval()
    states = trainer(configure, value_head={})._read_states(trees, CURRENT)
    assert len(states[3]) == 0
    for tree, own in zip(trees[:3], states, strict=False):
        for node, state in zip(tree.nodes.nodes, own, strict=True):
            above = () if node.draw is None else trajectory(tree.scored.draws, node.draw)[: node.end]
            with torch.no_grad():
                ids = torch.tensor([[*tree.scored.task.prompt_ids, *above]])
                expected = model.base_model(ids).last_hidden_state[0, -1]
            assert torch.allclose(torch.from_numpy(state), expected, atol=1e-5)


class Spy(Credit):
    """Keeps the trees that credit is asked for."""

    def __init__(self) -> None:
        self.seen: list[Tree] = []

    def advantages(self, tree: Tree, side: SideInformation = SideInformation()) -> Advantages:  # noqa: B008
        self.seen.append(tree)
        return Advantages((0.0,) * len(tree.nodes))


def test_a_head_learns_from_a_tree_only_after_it_has_valued_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, spy = trainer(configure, value_head={"hidden": 4}), Spy()
    monkeypatch.setattr(ValueLearner, "credit", spy)
    first = step(one, [a_tree(1)])
    assert set(spy.seen[0].priors or ()) == {0.5}
    assert first.value_loss == pytest.approx(np.log(2))
    assert first.value_brier is not None
    known = one._read_states([a_tree(2)], CURRENT)[0]
    head = one.values._head
    assert head is not None
    step(one, [a_tree(2)])
    assert spy.seen[1].priors != spy.seen[0].priors
    assert len(set(spy.seen[1].priors or ())) > 1
    assert spy.seen[1].priors != pytest.approx(head.values(torch.from_numpy(known)), abs=1e-4)


def test_a_head_learns_from_ties_too(configure: Configure) -> None:
    one = trainer(configure, value_head={})
    for _ in range(5):
        step(one, [], [a_tree(1, rewards=(1.0,))])
    (informed,) = one.values.inform([a_tree(2)], one._read_states([a_tree(2)], CURRENT))
    assert fmean(informed.nodes.priors or ()) > 0.6


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_head_comes_to_predict_counts(hidden: int) -> None:
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(size=(300, 16)).astype(np.float32))
    truth = torch.sigmoid(2 * states[:, 0] - 1)
    values = torch.bernoulli(truth, generator=torch.Generator().manual_seed(0)).tolist()
    head = ValueHead(16, ValueHeadConfig(hidden=hidden, updates=60), seed=1)
    assert head.values(states[:2]) == [0.5, 0.5]
    head.learn(states, values, [1.0] * 300)
    found = torch.tensor(head.values(states))
    assert float(torch.corrcoef(torch.stack([found, truth]))[0, 1]) > 0.8
    before = head.values(states)
    head.learn(states * float("nan"), values, [1.0] * 300)
    assert head.values(states) == before


def test_a_head_that_goes_on_from_a_checkpoint_is_the_same_to_the_bit(configure: Configure, tmp_path: Path) -> None:
    whole, begun = (trainer(configure, advantage=HEAD, value_head={"hidden": 4}) for _ in range(2))
    for one in (whole, begun):
        step(one, [a_tree(1)], [a_tree(5, rewards=(0.0,))])
    write_values(begun.values.state(), tmp_path)
    resumed = trainer(configure, advantage=HEAD, value_head={"hidden": 4})
    resumed._policy = begun._policy
    resumed.values.restore(tmp_path)
    assert step(resumed, [a_tree(2)]).value_loss == step(whole, [a_tree(2)]).value_loss
    ours, theirs = resumed.values.state(), whole.values.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_head_of_another_shape_is_not_taken_on(configure: Configure, tmp_path: Path) -> None:
    one = trainer(configure, value_head={"hidden": 4})
    step(one, [a_tree(1)])
    write_values(one.values.state(), tmp_path)
    for hidden in (0, 6):
        with pytest.raises(InvalidInput, match="give the earlier"):
            trainer(configure, value_head={"hidden": hidden}).values.restore(tmp_path)
    (tmp_path / "values.safetensors").write_bytes(b"none")
    with pytest.raises(InvalidInput, match="remove the file"):
        trainer(configure, value_head={}).values.restore(tmp_path)
    trainer(configure).values.restore(tmp_path)  # nobody wants it
    save_file({"fit.likelihood": torch.zeros(5)}, tmp_path / "values.safetensors")
    trainer(configure, value_head={}).values.restore(tmp_path)  # of a run without a head


def test_the_calibration_is_fitted_as_the_run_goes_and_used_from_the_next_step_on(
    configure: Configure, tmp_path: Path
) -> None:
    one, tree = trainer(configure, **LIKELIHOOD), with_likelihoods(a_tree(1))
    assert one.values.credit == one.values._credit
    assert step(one, [tree]).trees_without_prior == 0
    expected = CalibrationFit().add(observations(tree.nodes, PriorSource.LIKELIHOOD), 0.98).best
    assert isinstance(one.values.credit, IBTPOCredit)
    assert one.values.credit.values == WithPrior(fit=True, a=expected.a, b=expected.b)
    write_values(one.values.state(), tmp_path)
    resumed = trainer(configure, **LIKELIHOOD)
    resumed.values.restore(tmp_path)
    assert resumed.values.credit == one.values.credit
    assert step(one, [a_tree(1), tree]).trees_without_prior == 1


def test_without_priors_nothing_is_read_or_kept(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(LanguageModel, "hidden_states")
    one = trainer(configure)
    update = step(one, [a_tree(1)], [a_tree(2)])
    assert not one.values.is_active
    assert one.values.state() == {}
    assert (update.value_loss, update.trees_without_prior) == (None, 0)


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}])
def test_credit_takes_what_the_head_says(configure: Configure, lora: Any) -> None:
    one = trainer(configure, advantage={"kind": "baseline", "siblings": False}, lora=lora)
    (tree,) = one.values.inform([a_tree(1)], one._read_states([a_tree(1)], CURRENT))
    assert isinstance(one.values.credit, BaselineCredit)
    found = one.values.credit.advantages(tree.nodes)
    assert found.on_paths(tree.nodes)[0] == (0.5,) * len(tree.nodes.path(0))
    assert node_values(tree.nodes, WithPrior(source=PriorSource.HEAD, kappa=1.0))[0] == pytest.approx(
        (node_values(tree.nodes, WithPrior(kappa=0.0))[0] * 7 + 0.5) / 8
    )


def test_a_head_is_for_credit_alone(configure: Configure) -> None:
    assert configure(advantage=HEAD).value_head_plan == ValueHeadConfig()
    assert configure().value_head_plan is None
    ib = {"growth": {"sampler": {"kind": "ib"}}}
    with pytest.raises(ValidationError, match=r"sampler\.score\.values=counts"):
        configure(method=HEAD, **ib)
    own = {"growth": {"sampler": {"kind": "ib", "score": {"values": "counts"}}}}
    assert configure(method=HEAD, **own).value_head_plan == ValueHeadConfig()
    with pytest.raises(ValidationError, match="on_ties"):
        configure(advantage="baseline", objective={"ties": "refill"})
