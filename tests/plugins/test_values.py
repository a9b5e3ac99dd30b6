"""Values for figures and views: an estimator of the user's own that fails stops neither."""

import io
import random
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from rich.console import Console

from examples.own_values import LaplaceValues
from services.launcher.display.tree_view import render_tree
from services.launcher.runs.model_files import TokenTable
from services.learner.record.figures import measure_trees, sampling_figures
from services.learner.training.trajectories import BuiltTree
from services.rollout.grower import TreeGrower
from shared.plugins import BoundedValues, OwnProcesses
from shared.protocol.tree import ScoredTree
from shared.tree.ib_score import IBSettings
from shared.tree.node import build_tree
from shared.tree.values import COUNTS, ValueEstimator, node_values
from tests.learner.synthetic import draws, scored, task
from tests.plugins.hostile_credits import Broken

TREE = build_tree(draws(random.Random(3)))
RAISES = "value estimator tests.plugins.hostile_credits:Broken: ZeroDivisionError: division by zero"


@pytest.fixture(scope="module")
def own() -> Iterator[OwnProcesses]:
    with closing(OwnProcesses(20.0)) as processes:
        yield processes


def scored_by(values: ValueEstimator, seed: int = 0) -> ScoredTree:
    """A tree whose nodes are scored by such values."""
    tree = scored(task(seed), draws(random.Random(seed), rewards=(1.0, 0.0)))
    return tree.model_copy(update={"task": tree.task.model_copy(update={"score": IBSettings(values=values)})})


def test_an_estimator_of_ones_own_gives_its_values_in_another_process(own: OwnProcesses) -> None:
    values_of = BoundedValues(own)
    assert values_of(TREE, LaplaceValues()) == node_values(TREE, LaplaceValues())
    assert values_of(TREE, COUNTS) == node_values(TREE, COUNTS)
    assert values_of.reason == ""


def test_a_tree_whose_estimator_fails_has_all_figures_but_those_of_values(own: OwnProcesses) -> None:
    trees = [BuiltTree.of(scored_by(values, 1)) for values in (Broken(), LaplaceValues())]
    plain = BuiltTree.of(scored_by(LaplaceValues(), 1))
    values_of = BoundedValues(own)
    (found, usage), (one, _) = measure_trees(trees, values_of), measure_trees([plain])
    assert values_of.reason.startswith(RAISES)
    assert found.without_values == sampling_figures(found, usage, 1.0).trees_without_values == 1
    assert (found.trees, found.root_value, found.avg_rate) == (2, one.root_value, one.avg_rate)
    assert (found.ib_score, found.fork_scores) == (one.ib_score, one.fork_scores)


class Counted(OwnProcesses):
    num_calls = 0

    def call(self, *arguments: Any, **options: Any) -> Any:
        self.num_calls += 1
        return super().call(*arguments, **options)


def test_many_trees_wait_for_an_estimator_that_loops_no_longer_than_one() -> None:
    with closing(Counted(0.3)) as counted:
        values_of = BoundedValues(counted)
        assert [values_of(TREE, Broken("loops")) for _ in range(9)] == [None] * 9
        assert counted.num_calls == 1
        assert "it took longer than 0.3 s" in values_of.reason


async def test_a_replica_hands_over_a_tree_whose_figures_alone_need_the_estimator(
    own: OwnProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    grower = TreeGrower(cast(Any, None), cast(Any, None), "r0", own)
    found = [await grower.figures(scored_by(Broken(), seed)) for seed in (1, 2)]
    assert [(one.without_values, one.trees, one.ib_score) for one in found] == [(1, 1, None)] * 2
    assert [record.getMessage() for record in caplog.records] == ["values_failed"]


def test_a_tree_is_shown_without_the_values_that_cannot_be_had() -> None:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    tokens = TokenTable(tuple(b"%d " % token for token in range(99)), frozenset())
    tree = scored_by(Broken())
    console.print(render_tree(tree, "the problem", tokens))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"no values: {RAISES}" in " ".join(shown.split())
    assert "root value" in shown
    assert re.search(r"IB-Score [+-]\d", shown) is None
