"""The user's own parts are tried before a run: what is wrong is told in one line, and built-in ones cost nothing."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from services.launcher.check import own_parts as checked
from services.launcher.check.own_parts import examine_own_parts, own_parts
from services.launcher.check.start import look_before_start
from services.launcher.check.trials import Surroundings, Trial, try_credit, try_sampler, try_term, try_values
from services.launcher.display.finding import Section
from services.launcher.settings.plan import RunPlan, RunRequest, draft_plan
from services.learner.loss_terms import Clip, LossTerm, TokenTensors
from shared.errors import InvalidInput
from shared.tree.credit import CREDITS, NOTHING_MORE, Advantages, Credit, SideInformation
from shared.tree.node import Tree
from shared.tree.sample_trees import SAMPLE_TOKENS, Carried, sample_trees
from shared.tree.samplers import SAMPLERS, Branch, Sampler
from shared.tree.values import VALUES, ValueEstimator

HERE = __name__
HOSTILE = "tests.plugins.hostile_credits"
GIVEN = Surroundings(Carried(), 64, False, SAMPLE_TOKENS, False, Clip(0.2, 0.2))
ALL = Surroundings(Carried(True, True, True), 64, True, SAMPLE_TOKENS, True, Clip(0.2, 0.2))
MODULES = import_module("torch"), import_module("services.learner.training.own_terms")

CREDIT_OF: dict[str, Callable[[Tree], Any]] = {
    "good": lambda tree: Advantages.of_trajectories(tree, tree.reward_of_draw),
    "raises": lambda tree: 1 / 0,
    "a list": lambda tree: [0.0] * len(tree.nodes),
    "too few": lambda tree: Advantages((0.0,)),
    "NaN": lambda tree: Advantages((math.nan,) * len(tree.nodes)),
    "unjudged": lambda tree: Advantages.of_trajectories(tree, [one.reward - 0.5 for one in tree.draws]),  # type: ignore[operator]
    "cut": lambda tree: {one.finish.value: 1 for one in tree.draws}["length"],
    "merged": lambda tree: Advantages((1.0,) * [len(tree.nodes)][max(node.multiplicity for node in tree.nodes) - 1]),
    "zeros": lambda tree: Advantages((0.0,) * len(tree.nodes)),
}
BRANCHES_OF: dict[str, Callable[[Tree, random.Random], Any]] = {
    "good": lambda tree, rng: [Branch(0, 1, 1)],
    "numpy": lambda tree, rng: [Branch(*import_module("numpy").array([0, 1, 1]))],
    "nothing": lambda tree, rng: None,
    "no branch": lambda tree, rng: [(0, 1, 1)],
    "nowhere": lambda tree, rng: [Branch(99, 1, 1)],
    "too many": lambda tree, rng: [Branch(None, 0, 1 << 40)],
    "unsure": lambda tree, rng: [Branch(0, random.SystemRandom().randrange(1, tree.draws[0].end), 1)],
}
VALUES_OF: dict[str, Callable[[Tree], Any]] = {
    "good": lambda tree: [0.5] * len(tree.nodes),
    "numpy": lambda tree: import_module("numpy").full(len(tree.nodes), 0.5),
    "a mapping": lambda tree: dict.fromkeys(range(len(tree.nodes)), 0.5),
    "endless": lambda tree: iter(float, 1.0),
    "beyond": lambda tree: [3.0] * len(tree.nodes),
    "all wrong": lambda tree: [0.5 / sum(tree.rewards)] * len(tree.nodes),
}
LOSS_OF: dict[str, Callable[[TokenTensors], Any]] = {
    "good": lambda tokens: tokens.logprobs_BT.square(),
    "raises": lambda tokens: 1 / 0,
    "a mean": lambda tokens: tokens.logprobs_BT.mean(),
    "NaN": lambda tokens: tokens.logprobs_BT * math.nan,
    "no gradient": lambda tokens: tokens.logprobs_BT.detach(),
    "bad gradient": lambda tokens: (tokens.logprobs_BT - tokens.logprobs_BT.detach()).abs().sqrt(),
    "one answer": lambda tokens: tokens.logprobs_BT / tokens.logprobs_BT.std(0, unbiased=False),
}


@dataclass(frozen=True)
class OwnCredit(Credit):
    how: str = "good"

    def advantages(self, tree: Tree, side: SideInformation = NOTHING_MORE) -> Any:
        return CREDIT_OF[self.how](tree)


@dataclass(frozen=True)
class OwnSampler(Sampler):
    how: str = "good"
    initial_draws: int = 4
    num_draws = 9  # type: ignore[assignment]

    def expand(self, tree: Tree, round: int, rng: random.Random) -> Any:
        return BRANCHES_OF[self.how](tree, rng) if len(tree.draws) < self.num_draws else []


@dataclass(frozen=True)
class OwnValues(ValueEstimator):
    how: str = "good"

    def values(self, tree: Tree) -> Sequence[float]:
        found: Sequence[float] = VALUES_OF[self.how](tree)
        return found


@dataclass(frozen=True)
class OwnTerm(LossTerm):
    how: str = "good"

    def loss(self, tokens: TokenTensors) -> Any:
        return LOSS_OF[self.how](tokens)


@pytest.mark.parametrize(
    ("how", "failed", "warning"),
    [
        ("good", "", ""),
        ("raises", "ZeroDivisionError: division by zero (test_own_parts.py:", ""),
        ("a list", "a credit gives Advantages(of_nodes), not [0.0", ""),
        ("too few", "1 advantages for", ""),
        ("NaN", "a number is NaN or infinite: give finite ones, on a plain tree", ""),
        ("unjudged", "on a tree with an unjudged draw", ""),
        ("merged", "", "on a tree of equal draws, as merge_equal_draws merges them"),
        ("zeros", "", "gives every node of every small tree the advantage 0"),
    ],
)
def test_a_credit_is_tried_on_trees_with_every_edge(how: str, failed: str, warning: str) -> None:
    check(try_credit(OwnCredit(how), GIVEN), failed, warning)


def test_what_a_run_merges_a_part_has_to_know() -> None:
    check(try_credit(OwnCredit("merged"), ALL), "on a tree of equal draws", "")


@pytest.mark.parametrize(
    ("how", "failed", "warning"),
    [
        ("good", "", ""),
        ("numpy", "", ""),
        ("nothing", "expand gives a sequence of Branch, empty when the tree is finished, not None", ""),
        ("no branch", "a sampler gives Branch(parent, cut, count), not (0, 1, 1)", ""),
        ("nowhere", "draws to branch from, numbered from 0: Branch(parent=99", ""),
        ("too many", "1099511627776 draws, where 5 are left of num_draws", ""),
        ("unsure", "", "chooses otherwise for the same tree and rng: take chance from rng alone"),
    ],
)
def test_a_sampler_grows_small_trees(how: str, failed: str, warning: str) -> None:
    check(try_sampler(OwnSampler(how), GIVEN), failed, warning)


@pytest.mark.parametrize(
    ("how", "failed", "warning"),
    [
        ("good", "", ""),
        ("numpy", "", ""),
        ("a mapping", "a sequence of one number for each of", ""),
        ("endless", "values for", ""),
        ("beyond", "", "gives values outside [0, 1]"),
        ("all wrong", "ZeroDivisionError", ""),
    ],
)
def test_values_are_tried_on_trees_with_every_edge(how: str, failed: str, warning: str) -> None:
    check(try_values(OwnValues(how), GIVEN), failed, warning)


@pytest.mark.parametrize(
    ("how", "failed", "warning"),
    [
        ("good", "", ""),
        ("raises", "loss failed: ZeroDivisionError: division by zero (test_own_parts.py:", ""),
        ("a mean", "loss returned the shape [], not that of tokens, [3, 5], on a batch of three answers", ""),
        ("NaN", "returned a loss that is NaN or infinite", ""),
        ("no gradient", "", "gives a loss without a gradient"),
        ("bad gradient", "its gradient is NaN or infinite", ""),
        ("one answer", "", "returned a loss that is NaN or infinite, on a batch of one answer"),
    ],
)
def test_a_loss_term_is_tried_forwards_and_backwards(how: str, failed: str, warning: str) -> None:
    check(try_term(OwnTerm(how), f"{HERE}:OwnTerm", GIVEN, *MODULES), failed, warning)


def check(trial: Trial, failed: str, warning: str) -> None:
    """Whether it ended so; every reason is one line."""
    said = [trial.failed, *trial.warnings]
    assert bool(trial.failed) == bool(failed)
    assert bool(trial.warnings) == bool(warning)
    assert failed in trial.failed
    assert all(warning in one for one in trial.warnings)
    assert not any("\n" in one for one in said)


def test_built_in_parts_do_their_work_on_the_small_trees() -> None:
    """As the user's would: the trees are like those of a run."""
    for name in SAMPLERS.names:
        assert try_sampler(SAMPLERS.make(name), ALL) == Trial(), name
    for name in VALUES.names:
        assert try_values(VALUES.make(name), ALL) == Trial(), name
    for name in CREDITS.names:
        assert not try_credit(CREDITS.make(name), ALL).failed, name


def test_the_small_trees_have_what_they_say() -> None:
    plain, unjudged, cut, wrong, merged = (one.tree for one in sample_trees(Carried(), merges=True))
    assert {node.multiplicity for node in plain.nodes} == {1}
    assert (plain.is_mixed, wrong.is_mixed, wrong.rewards[0]) == (True, False, 0.0)
    assert None in unjudged.reward_of_draw
    assert any(one.is_cut for one in cut.draws)
    assert max(node.multiplicity for node in merged.nodes) == 2
    assert all(len(one.draws) > 4 for one in (plain, unjudged, cut, wrong, merged))


def plan(tmp_path: Path, *settings: str) -> RunPlan:
    return draft_plan(tmp_path / "runs", RunRequest("mine", "demo", settings))


def test_each_part_is_found_once_wherever_it_stands(tmp_path: Path) -> None:
    found = own_parts(
        plan(
            tmp_path,
            f"sampler={HERE}:OwnSampler",
            f"method.values={HERE}:OwnValues",
            f"objective.terms=[{{kind='{HERE}:OwnTerm'}}, {{kind='{HERE}:OwnTerm', how='NaN'}}]",
            "rollout.plugin_seconds=7",
        )
    )
    names = [(one.name.partition(" tests")[0], one.seconds) for one in found]
    assert names == [("sampler", 7.0), ("value estimator", 7.0), ("loss term", 30.0), ("loss term", 30.0)]
    assert own_parts(plan(tmp_path)) == []


def test_a_built_in_part_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "OwnProcesses", None)
    monkeypatch.setattr(checked, "_surroundings", None)
    section = Section("own parts")
    examine_own_parts(section, plan(tmp_path), None)
    assert section.findings == []


def test_a_run_with_a_bad_part_is_refused_before_anything_starts(tmp_path: Path) -> None:
    assert look_before_start(plan(tmp_path, "sampler=examples.own_sampler:VarianceSampler")) == []
    bad = plan(tmp_path, f"advantage={HOSTILE}:Own", "advantage.how=raises")
    refusal = rf"^credit {HOSTILE}:Own: ZeroDivisionError: .*, on a plain tree: mend it; `ibtpo check --quick` .*"
    with pytest.raises(InvalidInput, match=refusal):
        look_before_start(bad)
    with pytest.raises(InvalidInput, match=refusal):
        look_before_start(replace(bad, resumes=True))


def test_likelihoods_that_nobody_calibrated_are_named(tmp_path: Path) -> None:
    table = "growth.likelihood={}", "method.values={kind='prior'}"
    (warning,) = look_before_start(plan(tmp_path, *table))
    assert "likelihoods are not calibrated (a = 1, b = 0)" in warning
    assert "benchmarks.calibration" in warning
    assert look_before_start(plan(tmp_path, table[0], "method.values={kind='prior', a=0.4, b=-1.0}")) == []
