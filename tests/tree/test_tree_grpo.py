"""Tree-GRPO's choice of nodes, by enumerating every outcome of chance."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from shared.tree.draw import Draw
from shared.tree.node import build_tree
from shared.tree.samplers import Branch, TreeGRPOSampler
from tests.tree.chances import law
from tests.tree.records import BLANK_LINE, EOS, A, B, draw
from tests.tree.worlds import EndingWorld, grow

Place = tuple[int | None, int]


def candidates(
    draws: Sequence[Draw], tree_of_draw: Sequence[int], num_trees: int
) -> list[list[tuple[int | None, int]]]:
    """Of each tree: its root, and every step end of its draws at which they do not end, as (draw, position)."""
    nodes: list[list[Place]] = [[(None, 0)] for _ in range(num_trees)]
    for draw_id, one in enumerate(draws):
        nodes[tree_of_draw[draw_id]] += [(draw_id, end) for end in one.step_ends[:-1]]
    return nodes


def trees_of(draws: Sequence[Draw], num_trees: int, nodes_per_tree: int) -> list[int]:
    """By following the growth: initial answers begin the trees; a round's draws come tree by tree."""
    of_draw = list(range(num_trees))
    while len(of_draw) < len(draws):
        of_draw += [tree for tree in range(num_trees) for _ in range(nodes_per_tree)]
    return of_draw


@pytest.mark.parametrize("seed", range(12))
def test_each_tree_is_continued_from_nodes_of_its_own_uniformly(seed: int) -> None:
    sampler = TreeGRPOSampler(initial_draws=2, nodes_per_tree=1, rounds=3)
    draws = grow(EndingWorld(seed % 7, depth=3, width=2), sampler, random.Random(seed))[: 2 + 2 * (seed % 3)]
    nodes = candidates(draws, trees_of(draws, 2, 1), 2)
    chosen = law(lambda chance: sampler.expand(build_tree(draws), 1 + seed % 3, chance))
    expected = {
        (Branch(*first, 1), Branch(*second, 1)): 1 / (len(nodes[0]) * len(nodes[1]))
        for first in nodes[0]
        for second in nodes[1]
    }
    assert chosen == pytest.approx(expected)


def test_a_node_may_be_drawn_twice_in_a_round() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], 1.0)])
    chosen = law(lambda chance: TreeGRPOSampler(initial_draws=1).expand(tree, 1, chance))
    assert chosen[Branch(0, 2, 1), Branch(0, 2, 1)] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(12))
def test_a_draw_from_the_prompt_belongs_to_the_tree_that_it_was_drawn_for(seed: int) -> None:
    sampler = TreeGRPOSampler(initial_draws=3, nodes_per_tree=2, rounds=3)
    draws = grow(EndingWorld(seed % 7, depth=3, width=2), sampler, random.Random(seed))
    expected = trees_of(draws, 3, 2)
    for draw_id, one in enumerate(draws):
        assert one.parent is None or expected[one.parent] == expected[draw_id]
        if one.parent is None:
            assert sampler.tree_of(draw_id) == expected[draw_id]


def test_a_tree_whose_answer_has_no_verdict_is_continued_from_the_prompt() -> None:
    draws = [draw([A, BLANK_LINE, B, EOS], None), draw([A, BLANK_LINE, B, EOS], 1.0)]
    chosen = Counter(
        one
        for seed in range(99)
        for one in TreeGRPOSampler(nodes_per_tree=1).expand(build_tree(draws), 1, random.Random(seed))[:1]
    )
    assert chosen == {Branch(None, 0, 1): 99}


def test_without_the_prompt_a_tree_of_one_step_is_left_as_it_is() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([A, BLANK_LINE, B, EOS], 0.0)])
    sampler = TreeGRPOSampler(from_prompt=False)
    assert sampler.expand(tree, 1, random.Random(0)) == (Branch(1, 2, 1), Branch(1, 2, 1))


def test_the_published_size() -> None:
    assert TreeGRPOSampler().num_draws == 6
