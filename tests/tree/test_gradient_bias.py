"""Which baselines leave the policy gradient unbiased: its mean over every outcome of a record, by enumeration.

The policy is a table of probabilities, and ∇ is by its logits. A tree adds 1/G Σ w(s)·A(s)·∇log π(s), over its nodes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import pytest

from shared.tree.credit import (
    Baseline,
    Credit,
    DrGRPOCredit,
    IBTPOCredit,
    NodeWeight,
    RLOOCredit,
    assign_advantages,
    node_weights,
)
from shared.tree.draw import Draw
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import Branch
from shared.tree.values import BACKUP
from tests.tree.worlds import Choices, World

WORLD = World(seed=3, depth=2, width=2)
STATES = [state for length in (1, 2) for state in product(range(WORLD.width), repeat=length)]
Gradient = dict[Choices, float]
"""By the state after a choice, that of the choice's logit."""
Records = Iterator[tuple[float, list[Draw]]]


def independent(count: int) -> Records:
    """Every record of so many answers, with its probability."""
    for outcome in product(WORLD.answers(()), repeat=count):
        yield (
            math.prod(probability for _, probability in outcome),
            [WORLD.draw(Branch(None, 0, 1), answer) for answer, _ in outcome],
        )


def forked() -> Records:
    """Every record of two answers, and of one more that forks from the first after its first step."""
    for probability, draws in independent(2):
        first = WORLD.state(draws, Branch(0, 2, 1))
        for answer, share in WORLD.answers(first):
            yield probability * share, [*draws, WORLD.draw(Branch(0, 2, 1), answer)]


def true_gradient() -> Gradient:
    """∇p(q): P(state)·(p(after) − p(before)) of the choice that leads to each state."""
    reach = {state: math.prod(WORLD.policy[state[:at]][state[at]] for at in range(len(state))) for state in STATES}
    return {state: reach[state] * (WORLD.value[state] - WORLD.value[state[:-1]]) for state in STATES}


def mean_gradient(records: Records, advantages: Callable[[Tree], Sequence[float]], weigh: NodeWeight) -> Gradient:
    """The mean, over records, of what training on their trees adds."""
    of_choices = dict.fromkeys(STATES, 0.0)
    for probability, draws in records:
        tree = build_tree(draws)
        state_of: dict[int, Choices] = {0: ()}
        of_nodes, weights = advantages(tree), node_weights(tree, weigh)
        for node_id in range(1, len(tree.nodes)):
            state = state_of[node_id] = (*state_of[tree.parents[node_id]], tree.token_ids(node_id)[0])
            of_choices[state] += probability * weights[node_id] * of_nodes[node_id] / len(draws)
    total = {before: sum(of_choices[(*before, c)] for c in range(WORLD.width)) for before in WORLD.policy}
    return {s: of_choices[s] - WORLD.policy[s[:-1]][s[-1]] * total[s[:-1]] for s in STATES}  # ∂log π(c)/∂logit(c')


def undivided(credit: IBTPOCredit) -> Callable[[Tree], Sequence[float]]:
    """A_GL before std({R}) + ε divides it: a divisor that depends on rewards biases whatever the baseline is."""

    def advantages(tree: Tree) -> Sequence[float]:
        scale = credit.std.of(tree.rewards) + credit.epsilon
        return [scale * a for a in assign_advantages(credit, tree).of_nodes]

    return advantages


def of_nodes(credit: Credit) -> Callable[[Tree], Sequence[float]]:
    return lambda tree: assign_advantages(credit, tree).of_nodes


def times(factor: float, gradient: Gradient) -> Gradient:
    return {state: factor * x for state, x in gradient.items()}


@pytest.mark.parametrize("count", [2, 3])
def test_leave_one_out_is_unbiased_over_independent_answers(count: int) -> None:
    found = mean_gradient(independent(count), of_nodes(RLOOCredit()), NodeWeight.LEAVES)
    assert found == pytest.approx(true_gradient())
    credit = IBTPOCredit(lam=0.0, baseline=Baseline.OTHERS)
    assert mean_gradient(independent(count), undivided(credit), NodeWeight.LEAVES) == pytest.approx(true_gradient())


@pytest.mark.parametrize("count", [2, 3])
def test_a_mean_of_all_answers_shortens_the_gradient(count: int) -> None:
    found = mean_gradient(independent(count), of_nodes(DrGRPOCredit()), NodeWeight.LEAVES)
    assert found == pytest.approx(times((count - 1) / count, true_gradient()))


def test_on_a_tree_only_the_answers_that_avoid_a_node_are_an_unbiased_baseline() -> None:
    """With V2 and on-policy weights, where nothing that was seen decided the fork."""
    others = IBTPOCredit(lam=0.0, values=BACKUP, baseline=Baseline.OTHERS)
    assert mean_gradient(forked(), undivided(others), NodeWeight.DRAWS) == pytest.approx(true_gradient())
    for biased in (RLOOCredit(), DrGRPOCredit()):
        found = mean_gradient(forked(), of_nodes(biased), NodeWeight.LEAVES)
        assert found != pytest.approx(true_gradient(), rel=0.05)
