"""Where each sampler draws next."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.tree.draw import Draw, Finish, trajectory
from shared.tree.ib_score import Confidence, IBSettings, ScoreForm, ib_scores
from shared.tree.node import build_tree
from shared.tree.samplers import (
    SAMPLERS,
    ActivePathSampler,
    AnySampler,
    Branch,
    EntropySampler,
    ExpectedVarianceSampler,
    FixedWidthSampler,
    HitSampler,
    IBSampler,
    IndependentSampler,
    RandomSampler,
    SPOTreeSampler,
    TokenScore,
    TreeGRPOSampler,
    TreePOSampler,
    TreeRPOSampler,
    check_branches,
)
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records
from tests.tree.worlds import World, grow

OF_EVERY_KIND: list[AnySampler] = [
    IndependentSampler(),
    IBSampler(),
    IBSampler(initial_draws=3, rounds=3, nodes_per_round=2, draws_per_node=3),
    IBSampler(score=IBSettings(form=ScoreForm.EXACT, confidence=Confidence.SIBLINGS)),
    RandomSampler(),
    FixedWidthSampler(),
    EntropySampler(initial_draws=2, rounds=2),
    EntropySampler(initial_draws=2, rounds=2, token_score=TokenScore.ENTROPY),
    ActivePathSampler(),
    HitSampler(stops_when_mixed=False),
    ExpectedVarianceSampler(nodes_per_round=2),
    ActivePathSampler(initial_draws=3, rounds=2, token_score=TokenScore.SURPRISE),
    TreeRPOSampler(branching_factor=2, segment_tokens=3),
    SPOTreeSampler(branching_factors=(3, 2), segment_tokens=4),
    TreePOSampler(segment_tokens=3),
    TreeGRPOSampler(initial_draws=3, rounds=2),
]
FORK_BY_TOKENS = (TreeRPOSampler, SPOTreeSampler, TreePOSampler)
"""These cut an answer inside its last step, too: what comes before the fork has gone on."""
of_any_kind = pytest.mark.parametrize("sampler", OF_EVERY_KIND, ids=lambda sampler: SAMPLERS.kind_of(sampler))


@of_any_kind
def test_a_tree_grows_to_its_size_and_ends(sampler: AnySampler) -> None:
    draws = grow(World(0, depth=5, width=2), sampler, random.Random(0))
    assert len(draws) == sampler.num_draws
    assert all(one.parent is None for one in draws[: sampler.initial_draws])


def test_the_published_tree_has_12_trajectories() -> None:
    assert IBSampler().num_draws == 12


@of_any_kind
def test_a_seed_decides_the_tree(sampler: AnySampler) -> None:
    world = World(0, depth=5, width=2)
    assert grow(world, sampler, random.Random(3)) == grow(world, sampler, random.Random(3))


@of_any_kind
def test_a_tree_without_verdicts_ends(sampler: AnySampler) -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], None) for _ in range(sampler.initial_draws)])
    assert sampler.expand(tree, 1, random.Random(0)) == ()


@of_any_kind
@pytest.mark.parametrize("token_ids", [[A], [A, B, A], [A, BLANK_LINE, B, BLANK_LINE, A]])
def test_a_tree_of_cut_answers_ends_and_never_branches_their_leaves(sampler: AnySampler, token_ids: list[int]) -> None:
    draws = [draw(token_ids, None) for _ in range(sampler.initial_draws)]
    for round_ in range(1, 20):
        tree = build_tree(draws)
        branches = sampler.expand(tree, round_, random.Random(round_))
        if not branches:
            break
        for one in branches:
            leaf = 0 if one.parent is None else tree.leaf_of_draw[one.parent]
            assert leaf is not None
            last = tree.nodes[leaf].end - 1 if isinstance(sampler, FORK_BY_TOKENS) else tree.nodes[leaf].start
            assert one.cut <= last or leaf == 0
            new = token_ids[one.cut :]
            draws += [draw(new, None, before=draws, parent=one.parent, cut=one.cut)] * one.count
    else:
        pytest.fail("it never ended")


@given(records(unjudged=True), st.sampled_from(OF_EVERY_KIND), st.integers(1, 4), st.booleans(), st.integers(0, 99))
@quick
def test_every_branch_continues_what_its_parent_sampled(
    draws: tuple[Draw, ...], sampler: AnySampler, round_: int, merge: bool, seed: int
) -> None:
    for one in sampler.expand(build_tree(draws, merge), round_, random.Random(seed)):
        assert one.count >= 1
        assert (one.parent is None) == (one.cut == 0)
        if one.parent is not None:
            grown = (*draws, draw([B, EOS], before=draws, parent=one.parent, cut=one.cut))
            tree = build_tree(grown, merge)
            assert sum((tree.token_ids(n) for n in tree.path(len(draws))), ()) == trajectory(grown, len(draws))


@given(st.sampled_from(OF_EVERY_KIND), st.booleans(), st.integers(0, 9999))
@settings(max_examples=40, deadline=None)
def test_growth_ends_within_its_bound_whatever_is_drawn(sampler: AnySampler, merge: bool, seed: int) -> None:
    """Answers of no to eight tokens, some cut by the limit, some without a verdict."""
    rng, draws = random.Random(seed), list[Draw]()
    branches: Sequence[Branch] = (Branch(None, 0, sampler.initial_draws),)
    for round_ in range(1, sampler.num_draws + 1):
        for one in [branch for branch in branches for _ in range(branch.count)]:
            tokens = (*rng.choices([A, B, BLANK_LINE], k=rng.randrange(8)), EOS)[: 8 - one.cut]
            draws.append(draw(tokens, rng.choice([0.0, 1.0, None]), before=draws, parent=one.parent, cut=one.cut))
        branches = sampler.expand(build_tree(draws, merge), round_, rng)
        check_branches(draws, branches, sampler.num_draws - len(draws))
        if not branches:
            return
    pytest.fail("it never ended")


@given(records(), st.integers(1, 3), st.integers(0, 99))
@quick
def test_ib_takes_the_nodes_of_the_highest_score(draws: tuple[Draw, ...], width: int, seed: int) -> None:
    tree, sampler = build_tree(draws), IBSampler(nodes_per_round=width, draws_per_node=2)
    scores = ib_scores(tree, sampler.score)
    node_of = {(node.draw, node.end): node_id for node_id, node in enumerate(tree.nodes) if node.num_draws}
    chosen = sampler.expand(tree, 1, random.Random(seed))
    assert len(chosen) == min(width, len(node_of))
    taken = [node_of.pop((one.parent, one.cut)) for one in chosen]
    assert all(one.count == 2 for one in chosen)
    assert all(scores[left] <= scores[node_id] for left in node_of.values() for node_id in taken)


def test_ib_may_draw_from_the_root_again() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([B, EOS], 0.0)])
    assert IBSampler().expand(tree, 1, random.Random(0)) == (Branch(None, 0, 1),)


def test_chance_decides_between_equal_scores() -> None:
    tree = build_tree([draw([A, BLANK_LINE, A, EOS], 1.0, logprobs=[-1.0] * 4) for _ in range(3)])
    chosen = Counter(IBSampler(initial_draws=3).expand(tree, 1, random.Random(seed))[0] for seed in range(200))
    assert set(chosen) == {Branch(None, 0, 1), Branch(0, 2, 1), Branch(1, 2, 1), Branch(2, 2, 1)}


def test_the_ablations_of_the_paper_have_its_trees_size() -> None:
    assert RandomSampler().num_draws == FixedWidthSampler(width=12).num_draws == 12


def test_random_is_uniform_over_what_is_no_leaf() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, BLANK_LINE, A, EOS], 1.0), draw([B, EOS], 0.0)])
    rng = random.Random(0)
    chosen = Counter(RandomSampler().expand(tree, 1, rng)[0] for _ in range(3000))
    assert chosen.keys() == {Branch(None, 0, 1), Branch(0, 2, 1), Branch(0, 4, 1)}
    assert all(abs(times - 1000) < 120 for times in chosen.values())


def test_random_draws_from_different_nodes_in_a_round() -> None:
    tree = build_tree([draw([A, BLANK_LINE, B, EOS], 1.0)])
    chosen = RandomSampler(nodes_per_round=5).expand(tree, 1, random.Random(0))
    assert sorted(one.cut for one in chosen) == [0, 2]


def test_fixed_width_splits_every_path_at_every_second_step() -> None:
    sampler = FixedWidthSampler(initial_draws=2, branching_factor=2, every_steps=2, width=8)
    draws = grow(World(0, depth=7, width=2), sampler, random.Random(0))
    assert [one.cut for one in draws] == [0, 0, 4, 4, 8, 8, 8, 8]
    assert {one.parent for one in draws[2:4]} == {0, 1}
    assert {one.parent for one in draws[4:]} == {0, 1, 2, 3}


def test_fixed_width_stops_where_paths_end() -> None:
    draws = grow(World(0, depth=3, width=2), FixedWidthSampler(width=99), random.Random(0))
    assert [one.cut for one in draws] == [0, 0, 4, 4]


def test_fixed_width_does_not_exceed_its_width() -> None:
    draws = grow(World(0, depth=7, width=2), FixedWidthSampler(width=5, branching_factor=3), random.Random(0))
    assert len(draws) == 5


def surprising(*logprobs: float, tokens: list[int] | None = None, reward: float | None = 1.0) -> Draw:
    return draw(tokens or [A] * (len(logprobs) - 1) + [EOS], reward, logprobs=logprobs)


def test_entropy_forks_each_answer_before_its_most_surprising_tokens() -> None:
    draws = [surprising(-9.0, -0.1, -2.0, -3.0, -0.2), surprising(-0.1, -0.5, -0.4, -0.3)]
    chosen = EntropySampler(initial_draws=2, forks_per_answer=2, draws_per_fork=3).expand(
        build_tree(draws), 1, random.Random(0)
    )
    assert chosen == (Branch(0, 3, 3), Branch(0, 2, 3), Branch(1, 1, 3), Branch(1, 2, 3))


def test_entropy_counts_an_answers_branches_to_its_tree() -> None:
    draws = [surprising(-0.1, -1.0, -0.5, -0.1), surprising(-0.1, -0.2, -0.1)]
    draws.append(draw([B, B, EOS], before=draws, parent=0, cut=1, logprobs=[-9.0, -4.0, -0.1]))
    chosen = EntropySampler(initial_draws=2, forks_per_answer=2, rounds=2, draws_per_fork=1).expand(
        build_tree(draws), 2, random.Random(0)
    )
    assert chosen == (Branch(2, 2, 1), Branch(0, 1, 1), Branch(1, 1, 1), Branch(1, 2, 1))


def test_entropy_forks_nothing_after_a_token_that_closes() -> None:
    sampler = EntropySampler(initial_draws=1).for_vocabulary([b"a", b" Answer", b"\n\n", b"<eos>"])
    assert isinstance(sampler, EntropySampler)
    assert sampler.closing_ids == {1}
    tree = build_tree([surprising(-0.1, -0.2, -0.3, -5.0, -6.0, tokens=[A, A, B, A, EOS])])
    assert [one.cut for one in sampler.expand(tree, 1, random.Random(0))] == [2, 1]


def test_entropy_forks_no_leaf_that_the_limit_cut() -> None:
    tree = build_tree([surprising(-0.1, -0.2, -0.3, -0.4, -9.0, tokens=[A, B, BLANK_LINE, A, A])])
    assert [one.cut for one in EntropySampler(initial_draws=1).expand(tree, 1, random.Random(0))] == [3, 2]


def test_entropy_passes_over_draws_without_a_verdict() -> None:
    draws = [surprising(-0.1, -9.0, -0.1, reward=None), surprising(-0.1, -0.2, -0.1)]
    chosen = EntropySampler(initial_draws=2, forks_per_answer=1).expand(build_tree(draws), 1, random.Random(0))
    assert [one.parent for one in chosen] == [1]


def test_entropy_has_at_most_the_published_number_of_answers() -> None:
    assert EntropySampler().num_draws == 30


@of_any_kind
def test_a_vocabulary_changes_no_other_sampler(sampler: AnySampler) -> None:
    informed = sampler.for_vocabulary([b"a"])
    assert informed == sampler
    assert SAMPLERS.dump(informed) == SAMPLERS.dump(sampler)


@of_any_kind
def test_samplers_cross_a_wire(sampler: AnySampler) -> None:
    wire: TypeAdapter[AnySampler] = TypeAdapter(AnySampler)
    assert wire.validate_json(wire.dump_json(sampler)) == sampler


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ib", "initial_draws": 0},
        {"kind": "ib", "breadth": 2},
        {"kind": "ib", "score": {"beta": 0}},
        {"kind": "ib", "score": {"gamma": 1}},
        {"kind": "random", "rounds": -1},
        {"kind": "fixed-width", "branching_factor": 1},
        {"kind": "entropy", "forks_per_answer": -1},
        {"kind": "independent", "width": 2},
        {"kind": "treerpo", "branching_factor": 1},
        {"kind": "treerpo", "initial_draws": 4},
        {"kind": "treerpo", "segment_tokens": -1},
        {"kind": "spo-tree", "branching_factors": []},
        {"kind": "spo-tree", "branching_factors": [6, 1, 6]},
        {"kind": "treepo", "divergence": 1},
        {"kind": "treepo", "width": 0},
        {"kind": "tree-grpo", "nodes_per_tree": 0},
        {"kind": "ib", "min_unseen": 1.0},
        {"kind": "hit", "confidence": "siblings"},
        {"kind": "expected-variance", "prior": 0.0},
        {"kind": "expected-variance", "prior_draws": 0.0},
        {"kind": "hit", "answer_nats": 0.0},
        {"kind": "expected-variance", "answer_nats": -1.0},
        {"kind": "expected-variance", "rounds": -1},
        {"kind": "active-path", "token_score": "mean"},
        {"kind": "active-path", "initial_draws": 0},
        {"kind": "magic"},
    ],
)
def test_a_wrong_sampler_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AnySampler).validate_python(wrong)


def test_a_stopped_answer_may_be_forked_inside_its_leaf() -> None:
    stopped = surprising(-0.1, -0.2, -9.0)
    assert stopped.finish is Finish.STOP
    tree = build_tree([stopped, replace(stopped, reward=0.0)])
    assert [
        one.cut for one in EntropySampler(initial_draws=2, forks_per_answer=1).expand(tree, 1, random.Random(0))
    ] == [2, 2]


@pytest.mark.parametrize(
    ("branch", "says"),
    [
        (Branch(True, 1, 1), "are integers"),
        (Branch(None, 0.0, 1), "are integers"),  # type: ignore[arg-type]
        (Branch(None, 0, 0), "at least one draw"),
        (Branch(None, 1, 1), "has cut 0"),
        (Branch(1, 1, 1), "there are 1 draws"),
        (Branch(-1, 1, 1), "there are 1 draws"),
        (Branch(0, 3, 1), "starts outside"),
        (Branch(None, 0, 4), "where 3 are left"),
        ("a", "not 'a'"),
    ],
)
def test_branches_that_cannot_be_drawn_are_refused(branch: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_branches([draw([A, B, EOS], 1.0)], [branch], 3)
