"""Samplers that fork at single tokens, against slow transcriptions of what their papers say."""

import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tree.draw import Draw
from shared.tree.node import build_tree
from shared.tree.samplers import ActivePathSampler, Branch, EntropySampler, TokenScore, check_branches
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, quick, records
from tests.tree.worlds import World, grow

of_any_score = pytest.mark.parametrize("score", TokenScore)


def scores_of(one: Draw, score: TokenScore) -> Sequence[float]:
    return [-x for x in one.logprobs] if score is TokenScore.SURPRISE else one.entropies or ()


def slow_active_paths(draws: Sequence[Draw], score: TokenScore) -> list[int]:
    """Every first answer's active path, by going through each answer's draws as they came."""

    def answer(i: int) -> int:
        parent = draws[i].parent
        return i if parent is None else answer(parent)

    found = []
    for first in range(len(draws)):
        mine = [i for i in range(len(draws)) if answer(i) == first and draws[i].counted_reward is not None]
        if not mine:
            continue
        active = mine[0]
        for new in mine[1:]:
            if fmean(scores_of(draws[new], score)) > fmean(scores_of(draws[active], score)):
                active = new
        found.append(active)
    return found


def slow_cuts(one: Draw) -> dict[int, int]:
    """Where a branch of the draw may begin that keeps its second token at least, and which of its tokens it is after:
    not inside the last step of an answer that the limit cut, and not after its last token."""
    last_step = max([one.cut, *one.step_ends[:-1]])
    return {
        one.cut + kept: kept - 1
        for kept in range(2, len(one.token_ids))
        if not (one.is_cut and one.cut + kept > last_step)
    }


@given(records(unjudged=True), st.sampled_from(TokenScore), st.booleans(), st.integers(0, 99))
@quick
def test_the_active_path_is_as_described(draws: tuple[Draw, ...], score: TokenScore, merge: bool, seed: int) -> None:
    chosen = ActivePathSampler(rounds=9, token_score=score).expand(build_tree(draws, merge), 1, random.Random(seed))
    active = slow_active_paths(draws, score)
    forked = [i for i in active if slow_cuts(draws[i])]
    assert sorted(one.parent for one in chosen if one.parent is not None) == sorted(forked)
    for one in chosen:
        assert one.parent is not None
        assert one.count == 1
        cuts, scores = slow_cuts(draws[one.parent]), scores_of(draws[one.parent], score)
        assert scores[cuts[one.cut]] == max(scores[at] for at in cuts.values())
    check_branches(draws, chosen, 99)


@of_any_score
def test_a_path_is_forked_after_its_highest_token_and_never_after_its_first_or_last(score: TokenScore) -> None:
    high = [9.0, 0.1, 2.0, 0.3, 8.0]
    one = draw([A, A, B, A, EOS], logprobs=[-x for x in high], entropies=high)
    sampler = ActivePathSampler(initial_draws=1, token_score=score)
    assert sampler.expand(build_tree([one]), 1, random.Random(0)) == (Branch(0, 3, 1),)


def test_the_new_path_is_active_if_its_own_tokens_are_of_higher_mean_entropy() -> None:
    first = draw([A, A, B, EOS], entropies=[1.0, 1.0, 2.0, 0.0])
    sampler = ActivePathSampler(initial_draws=1, rounds=3)
    for mean, active in ((1.5, 1), (0.5, 0), (1.0, 0)):
        second = draw([B, A, B, EOS], before=[first], parent=0, cut=3, entropies=[mean] * 4)
        assert list(sampler.active_paths(build_tree([first, second]))) == [active]


def test_a_path_that_cannot_be_forked_leaves_the_others_their_forks() -> None:
    draws = [draw([A, EOS]), draw([A, B, A, EOS])]
    chosen = ActivePathSampler().expand(build_tree(draws), 1, random.Random(0))
    assert [one.parent for one in chosen] == [1]


def test_the_published_tree_has_8_answers_of_2_active_paths() -> None:
    draws = grow(World(1, depth=6, width=2), ActivePathSampler(), random.Random(1))
    assert len(draws) == ActivePathSampler().num_draws == 8
    assert [one.parent is None for one in draws] == [True] * 2 + [False] * 6


def test_an_entropy_forest_forks_before_the_tokens_of_the_highest_entropy() -> None:
    one = draw([A, A, B, A, EOS], logprobs=[-9.0, -0.1, -8.0, -0.1, -0.1], entropies=[3.0, 0.5, 0.1, 0.7, 0.2])
    sampler = EntropySampler(initial_draws=1, forks_per_answer=2, token_score=TokenScore.ENTROPY)
    assert [each.cut for each in sampler.expand(build_tree([one]), 1, random.Random(0))] == [3, 1]


@pytest.mark.parametrize("sampler", [ActivePathSampler(), EntropySampler(token_score=TokenScore.ENTROPY)])
def test_entropies_that_are_missing_are_named_with_the_remedy(sampler: ActivePathSampler | EntropySampler) -> None:
    bare = [replace(draw([A, BLANK_LINE, B, EOS]), entropies=None)]
    assert sampler.asks_entropies
    with pytest.raises(ValueError, match=r"token_score=entropy needs the entropies of draws.*use surprise"):
        sampler.expand(build_tree(bare), 1, random.Random(0))


def test_who_scores_by_surprise_asks_for_no_entropies() -> None:
    assert not ActivePathSampler(token_score=TokenScore.SURPRISE).asks_entropies
    assert not EntropySampler().asks_entropies
