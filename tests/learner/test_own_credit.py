"""Credits of the user's own: what they make of a tree is looked at, and a tree without it fails alone."""

import random
import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.learner.own_credit import CreditAssigner, CreditFailed
from shared.errors import InvalidInput
from shared.plugins import OwnProcesses
from shared.tree.credit import Advantages, GRPOCredit, IBTPOCredit, SideInformation, assign_advantages
from shared.tree.node import build_tree
from tests.learner.conftest import Configure
from tests.learner.synthetic import draws
from tests.plugins.hostile_credits import BAD, Own, Scaled, Weightless, Zeros

TREE = build_tree(draws(random.Random(3)))
SIDE = SideInformation(TREE)
HERE = "tests.plugins.hostile_credits"


@pytest.fixture(scope="module")
def own() -> Iterator[OwnProcesses]:
    """One process, which begins again after every loop."""
    with closing(OwnProcesses(4.0)) as processes:
        yield processes


def test_an_own_credit_gives_what_it_computes(own: OwnProcesses) -> None:
    of_nodes, weights = CreditAssigner(Own(), own).assign(TREE, SIDE)
    assert of_nodes == Advantages.of_trajectories(TREE, TREE.reward_of_draw)
    assert weights == tuple(float(node.num_leaves) for node in TREE.nodes)


def test_a_built_in_credit_is_computed_here() -> None:
    found, _ = CreditAssigner(GRPOCredit(), OwnProcesses(2.0)).assign(TREE, SIDE)
    assert found == assign_advantages(GRPOCredit(), TREE, SIDE)


@pytest.mark.parametrize("how", BAD)
def test_a_tree_of_which_a_credit_makes_nothing_fails_alone(how: str, own: OwnProcesses) -> None:
    with pytest.raises(CreditFailed, match=rf"^credit {re.escape(HERE)}:Own: .*{re.escape(BAD[how][1])}") as failed:
        CreditAssigner(Own(how), own).assign(TREE, SIDE)
    assert "\n" not in str(failed.value)


def test_weights_and_scales_and_values_are_looked_at(own: OwnProcesses) -> None:
    with pytest.raises(CreditFailed, match="1 weights for"):
        CreditAssigner(Weightless(), own).assign(TREE, SIDE)
    with pytest.raises(CreditFailed, match=r"a node's weight is not negative: -1\.0"):
        CreditAssigner(Weightless("negative"), own).assign(TREE, SIDE)
    with pytest.raises(CreditFailed, match="Zeros gives 2 values for"):
        CreditAssigner(IBTPOCredit(values=Zeros()), own).assign(TREE, SIDE)
    assert CreditAssigner(Scaled(), own).step_scale([1.0], {1.0: 3}) == (1.0, 4.0)
    with pytest.raises(InvalidInput, match="step_scale: ValueError: it divides by 0"):
        CreditAssigner(Scaled("zero"), own).step_scale([1.0], {1.0: 3})


def test_whether_rewards_teach_is_the_credits_to_say(configure: Configure) -> None:
    assert configure(advantage=f"{HERE}:Curious").trains_on((1.0, 1.0))
    with pytest.raises(InvalidInput, match=r"Curious, has_signal: ZeroDivisionError"):
        configure(advantage={"kind": f"{HERE}:Curious", "how": "raises"}).trains_on((1.0, 1.0))
