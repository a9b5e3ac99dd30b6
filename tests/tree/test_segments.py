"""TreeRPO, SPO-tree, TreePO and fixed width against their papers' procedures, which decode segment by segment.

Ours draw answers to their end, and fork them afterwards. Both are run over every outcome of chance in small worlds.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.tree.draw import Draw, draw_before, logprob_before, trajectory
from shared.tree.node import build_tree
from shared.tree.samplers import (
    AnySampler,
    Branch,
    FixedWidthSampler,
    SPOTreeSampler,
    TreePOSampler,
    TreeRPOSampler,
    check_branches,
)
from shared.tree.samplers.sampler import branch_before, equal_shares
from shared.tree.samplers.tokens import first_answer
from shared.tree.samplers.treepo import Favour
from tests.tree.chances import Chance, law
from tests.tree.definitions import Definitions
from tests.tree.records import BLANK_LINE, EOS, A, B, draw, records
from tests.tree.worlds import BLANK_LINE as STEP_END
from tests.tree.worlds import EOS as STOP
from tests.tree.worlds import EndingWorld, World, grow

Path = tuple[tuple[Hashable, int], ...]
"""Of each token of an answer: in which call of the decoder it was sampled, and the token."""
Shape = tuple[tuple[int, "Shape"], ...]
"""A tree without names: of every continuation its first token and what follows, in an order of their own."""

WORLD = EndingWorld(3, depth=3, width=2)
"""Answers of 2, 4 and 6 tokens."""


def shape(paths: Sequence[Path]) -> Shape:
    """Two paths are one as long as the same calls sampled them."""
    groups: dict[tuple[Hashable, int], list[Path]] = defaultdict(list)
    for path in paths:
        if path:
            groups[path[0]].append(path[1:])
    return tuple(sorted((first[1], shape(rest)) for first, rest in groups.items()))


def num_tokens(tree: Shape) -> int:
    return sum(1 + num_tokens(rest) for _, rest in tree)


def grown(world: World, sampler: AnySampler, chance: Chance) -> Shape:
    """Our way: draws to their end, and branches inside them."""
    draws = grow(world, sampler, chance)
    assert len(draws) <= sampler.num_draws
    owners = Definitions(draws, merge=False).sampler_of_token
    found = shape([tuple(zip(owners[i], trajectory(draws, i), strict=True)) for i in range(len(draws))])
    assert num_tokens(found) == sum(len(one.token_ids) for one in draws)
    return found


class Decoder:
    """Samples segments of a world's answers, as an engine that stops after some tokens does."""

    def __init__(self, world: World, chance: Chance) -> None:
        self.world, self.chance, self.calls = world, chance, count()

    def decode(self, path: Path, max_tokens: float) -> Path:
        call = next(self.calls)
        for _ in range(int(min(max_tokens, 99))):
            if self.has_ended(path):
                break
            path = (*path, (call, self.next_token([token for _, token in path])))
        return path

    def next_token(self, tokens: Sequence[int]) -> int:
        state = tuple(token for token in tokens if token < STEP_END)
        if len(tokens) % 2:
            return STOP if self.world.ends(state) else STEP_END
        return int(self.chance.choices(range(self.world.width), self.world.policy[state])[0])

    def has_ended(self, path: Path) -> bool:
        return bool(path) and path[-1][1] == STOP


def n_ary(world: World, factors: Sequence[int], segment: int, chance: Chance) -> Shape:
    """TreeRPO's and SPO's: each path that has not ended has so many continuations; the last ones are not limited."""
    decoder = Decoder(world, chance)

    def leaves(path: Path, depth: int) -> Iterator[Path]:
        for _ in range(factors[depth]):
            child = decoder.decode(path, segment if depth + 1 < len(factors) else math.inf)
            if decoder.has_ended(child):
                yield child
            else:
                yield from leaves(child, depth + 1)

    return shape(list(leaves((), 0)))


def treepo(world: World, sampler: TreePOSampler, chance: Chance) -> Shape:
    """TreePO's: a queue of paths that are continued by a segment each, then divided into those that ended or go on.

    Ways are shared out as its code does, but for the rest of the division: there the last path has it, here chance.
    """
    decoder, segment = Decoder(world, chance), sampler.segment_tokens
    finished: list[Path] = []
    queue: list[Path] = [()] * sampler.initial_draws
    while queue:
        decoded = [decoder.decode(path, segment) for path in queue]
        ended = [path for path in decoded if decoder.has_ended(path)]
        live = [path for path in decoded if not decoder.has_ended(path)]
        finished, queue = finished + ended, []
        left = sampler.width - len(finished)
        if live:
            ways = max(min(left, sampler.divergence * (len(ended) + len(live))), len(live))
            for path, of_path in zip(live, divide(world, sampler, live, ways, chance), strict=True):
                queue += [path] * of_path
        elif sampler.fallback and left > 0:
            for path in chance.sample(finished, len(finished)):
                num_segments = math.ceil(len(path) / segment)
                kept = num_segments - chance.randrange(1, num_segments + 1)
                queue += [path[: kept * segment]] * min(sampler.divergence, left)
                left -= min(sampler.divergence, left)
    return shape(finished)


def divide(world: World, sampler: TreePOSampler, live: Sequence[Path], ways: int, chance: Chance) -> list[int]:
    """The ways of each path: equal ones, or one for each and the others by weights and largest remainders."""
    if sampler.favour is Favour.NONE:
        more = chance.sample(range(len(live)), ways % len(live))
        return [ways // len(live) + (nth in more) for nth in range(len(live))]
    if ways == len(live):
        return [1] * len(live)
    weights = []
    for path in live:
        choices = tuple(token for _, token in path if token < STEP_END)
        logprobs = [math.log(world.policy[choices[:at]][choice]) for at, choice in enumerate(choices)]
        mean = sum(logprobs) / len(path)  # what ends a step is certain
        weights.append(math.exp(mean if sampler.favour is Favour.LIKELY else -mean))
    rest = ways - len(live)
    shares = [rest * weight / sum(weights) for weight in weights]
    left = rest - sum(int(share) for share in shares)
    by_remainder = sorted(chance.sample(range(len(live)), len(live)), key=lambda nth: -round(shares[nth] % 1, 9))
    return [1 + int(share) + (nth in by_remainder[:left]) for nth, share in enumerate(shares)]


def fixed_width(world: World, sampler: FixedWidthSampler, chance: Chance) -> Shape:
    """Every path splits at every so many step ends, one after the other in an order of chance, while width is left."""
    decoder, segment = Decoder(world, chance), 2 * sampler.every_steps
    finished: list[Path] = []
    queue: list[Path] = [()] * sampler.initial_draws
    while queue:
        decoded = [decoder.decode(path, segment) for path in queue]
        finished += [path for path in decoded if decoder.has_ended(path)]
        live = [path for path in decoded if not decoder.has_ended(path)]
        left = max(0, sampler.width - len(finished) - len(live))
        queue = []
        for path in chance.sample(live, len(live)):
            new = min(sampler.branching_factor - 1, left)
            queue, left = queue + [path] * (1 + new), left - new
    return shape(finished)


def same_law(ours: dict[Shape, float], papers: dict[Shape, float]) -> None:
    assert sum(papers.values()) == pytest.approx(1.0)
    assert ours == pytest.approx(papers)


@pytest.mark.parametrize("segment", [1, 2, 3])
def test_treerpo_grows_the_trees_of_segmentwise_decoding(segment: int) -> None:
    sampler = TreeRPOSampler(branching_factor=2, depth=2, segment_tokens=segment)
    same_law(
        law(lambda chance: grown(WORLD, sampler, chance)), law(lambda chance: n_ary(WORLD, (2, 2), segment, chance))
    )


@pytest.mark.parametrize("factors", [(3,), (2, 3), (1, 2, 2)])
def test_spo_grows_the_trees_of_segmentwise_decoding(factors: tuple[int, ...]) -> None:
    world = EndingWorld(1, depth=2, width=2)
    sampler = SPOTreeSampler(branching_factors=factors, segment_tokens=1)
    same_law(law(lambda chance: grown(world, sampler, chance)), law(lambda chance: n_ary(world, factors, 1, chance)))


@pytest.mark.parametrize(
    "sampler",
    [
        TreePOSampler(segment_tokens=1, width=4),
        TreePOSampler(segment_tokens=2, width=4),
        TreePOSampler(segment_tokens=3, width=4),
        TreePOSampler(segment_tokens=2, width=3, initial_draws=1, divergence=3),
        TreePOSampler(segment_tokens=2, width=4, initial_draws=3),
        TreePOSampler(segment_tokens=2, width=4, fallback=False),
        TreePOSampler(segment_tokens=3, width=4, divergence=3, favour=Favour.UNLIKELY, fallback=False),
        TreePOSampler(segment_tokens=2, width=5, initial_draws=3, favour=Favour.LIKELY, fallback=False),
    ],
    ids=str,
)
def test_treepo_grows_the_trees_of_segmentwise_decoding(sampler: TreePOSampler) -> None:
    world = EndingWorld(2, depth=2, width=2)
    same_law(law(lambda chance: grown(world, sampler, chance)), law(lambda chance: treepo(world, sampler, chance)))


def test_fixed_width_grows_the_trees_of_stepwise_decoding() -> None:
    sampler = FixedWidthSampler(every_steps=1, width=3)
    same_law(law(lambda chance: grown(WORLD, sampler, chance)), law(lambda chance: fixed_width(WORLD, sampler, chance)))


@given(records(unjudged=True))
@settings(max_examples=30, deadline=None)
def test_a_position_belongs_to_the_draw_that_sampled_the_token_before_it(draws: tuple[Draw, ...]) -> None:
    for draw_id, owners in enumerate(Definitions(draws, merge=False).sampler_of_token):
        assert [draw_before(draws, draw_id, position) for position in range(1, len(owners) + 1)] == owners
        assert first_answer(draws, draw_id) == owners[0]
        logprobs = [draws[owner].logprobs[at - draws[owner].cut] for at, owner in enumerate(owners)]
        for position in range(1, len(owners) + 1):
            assert logprob_before(draws, draw_id, position) == (pytest.approx(sum(logprobs[:position])), position)
        for position in range(len(owners)):
            branch = branch_before(draws, draw_id, position, 1)
            check_branches(draws, [branch], 1)
            if branch.parent is not None:
                assert trajectory(draws, branch.parent)[:position] == trajectory(draws, draw_id)[:position]


@pytest.mark.parametrize("total", range(8))
@pytest.mark.parametrize("num_shares", [1, 2, 3])
def test_shares_are_equal_but_for_one_and_chance_is_fair(total: int, num_shares: int) -> None:
    shares = law(lambda chance: tuple(equal_shares(total, num_shares, chance)))
    assert all(sum(one) == total and max(one) - min(one) <= 1 for one in shares)
    for nth in range(num_shares):
        assert sum(p * one[nth] for one, p in shares.items()) == pytest.approx(total / num_shares)


def test_where_the_width_is_short_every_path_has_the_same_chance() -> None:
    tree = build_tree([draw([A, B, A, EOS], 1.0) for _ in range(4)])
    sampler = TreeRPOSampler(branching_factor=4, depth=2, segment_tokens=2, width=9)
    chosen = law(lambda chance: tuple((one.parent, one.count) for one in sampler.expand(tree, 1, chance)))
    assert chosen == pytest.approx({tuple((i, 1 + (i == more)) for i in range(4)): 0.25 for more in range(4)})


def test_answers_that_end_with_their_segment_are_not_forked() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([A, B, EOS], 0.0), draw([A, B, A, B], 0.0)])
    for sampler in (TreeRPOSampler(segment_tokens=2), SPOTreeSampler(segment_tokens=2)):
        assert {(one.parent, one.cut) for one in sampler.expand(tree, 1, random.Random(0))} == {(1, 2), (2, 2)}


def test_an_answer_that_the_limit_cut_is_forked_inside() -> None:
    """Its part before the fork lived; only its end counts 0."""
    tree = build_tree([draw([A, B, A, B], 0.0)])
    assert TreeRPOSampler(segment_tokens=3, width=2).expand(tree, 1, random.Random(0)) == (Branch(0, 3, 1),)
    assert TreeRPOSampler(segment_tokens=4, width=2).expand(tree, 1, random.Random(0)) == ()


@pytest.mark.parametrize("sampler", [TreeRPOSampler(segment_tokens=1), TreePOSampler(segment_tokens=1)], ids=repr)
def test_an_answer_without_a_verdict_is_not_forked(sampler: AnySampler) -> None:
    tree = build_tree([draw([A, B, EOS], None), draw([A, B, EOS], 1.0)])
    assert {one.parent for one in sampler.expand(tree, 1, random.Random(0))} == {1}


def test_treepo_gives_the_ways_of_an_ended_path_to_the_others() -> None:
    tree = build_tree([draw([A, EOS], 1.0), draw([A, B, EOS], 0.0)])
    assert TreePOSampler(segment_tokens=2).expand(tree, 1, random.Random(0)) == (Branch(1, 2, 3),)


def test_treepo_falls_back_to_segment_starts_of_answers_that_ended_by_themselves() -> None:
    draws = [draw([A, B, A, EOS], 1.0), draw([A, B, A, B], 0.0)]
    draws.append(draw([B, EOS], 1.0, before=draws, parent=0, cut=2))
    draws.append(draw([B, A], 0.0, before=draws, parent=1, cut=2))
    tree, sampler = build_tree(draws), TreePOSampler(segment_tokens=2, width=7)
    starts = [(None, 0), (0, 2)]  # of draw 2, too: draw 0 sampled what comes before its second segment
    chosen = law(lambda chance: sampler.expand(tree, 2, chance))
    assert chosen == pytest.approx({(Branch(*p, 2), Branch(*q, 1)): 0.25 for p in starts for q in starts})


@pytest.mark.parametrize(("favour", "counts"), [(Favour.UNLIKELY, {0: 1, 1: 3}), (Favour.LIKELY, {0: 3, 1: 1})])
def test_treepo_may_favour_paths_by_their_likelihood(favour: Favour, counts: dict[int, int]) -> None:
    tree = build_tree([draw([A, B, EOS], 1.0, logprobs=[-0.1 - surprise] * 3) for surprise in (0.0, 1.0)])
    sampler = TreePOSampler(segment_tokens=2, divergence=3, favour=favour)
    assert {one.parent: one.count for one in sampler.expand(tree, 1, random.Random(0))} == counts


def test_treepo_falls_back_to_the_prompt_when_no_answer_ended_by_itself() -> None:
    tree = build_tree([draw([A, B], 0.0), draw([A, BLANK_LINE], 0.0)])
    assert TreePOSampler(segment_tokens=2, width=9).expand(tree, 1, random.Random(0)) == (Branch(None, 0, 2),)


@pytest.mark.parametrize("width", range(1, 12))
def test_treepo_reaches_its_width_exactly(width: int) -> None:
    sampler = TreePOSampler(segment_tokens=3, width=width)
    sizes = Counter(len(grow(WORLD, sampler, random.Random(seed))) for seed in range(20))
    assert set(sizes) == {sampler.num_draws}


def test_the_published_trees_have_their_sizes() -> None:
    assert SPOTreeSampler().num_draws == 216
    assert TreePOSampler().num_draws == 16
    assert TreeRPOSampler(branching_factor=8, width=9999).num_draws == 512
    assert TreeRPOSampler(branching_factor=8, width=5).num_draws == 8


@pytest.mark.parametrize(
    ("sampler", "tokens"),
    [
        (TreeRPOSampler(depth=3, segment_tokens=0), 16),
        (SPOTreeSampler(branching_factors=(6, 6), segment_tokens=0), 24),
        (TreePOSampler(segment_tokens=0), 4),
        (TreePOSampler(segment_tokens=7), 7),
    ],
)
def test_a_segment_may_be_a_share_of_the_longest_answer(
    sampler: TreeRPOSampler | SPOTreeSampler | TreePOSampler, tokens: int
) -> None:
    assert sampler.for_answers(48).segment_tokens == tokens


@pytest.mark.parametrize("sampler", [TreeRPOSampler(segment_tokens=0), TreePOSampler(segment_tokens=0)], ids=repr)
def test_a_share_of_no_limit_is_refused(sampler: AnySampler) -> None:
    with pytest.raises(ValueError, match="for_answers"):
        sampler.expand(build_tree([draw([A, B, EOS], 1.0)]), 1, random.Random(0))


@given(st.lists(st.integers(2, 9), min_size=1, max_size=9), st.integers(1, 300))
def test_a_tree_of_paths_has_as_many_draws_as_their_ways_multiply_to(ways: list[int], width: int) -> None:
    sampler = SPOTreeSampler(tuple(ways), width=width)
    assert sampler.num_draws == min(math.prod(ways), max(ways[0], width))
    alike = TreeRPOSampler(ways[0], depth=len(ways), width=width)
    assert alike.num_draws == SPOTreeSampler((ways[0],) * len(ways), width=width).num_draws
    assert SPOTreeSampler((1, *ways), width=width).num_draws == min(math.prod(ways), width)


def test_ways_without_end_are_not_multiplied_out() -> None:
    assert TreeRPOSampler(10**9, depth=10**12, width=64).num_draws == 10**9
    assert TreeRPOSampler(2, depth=10**12, width=64).num_draws == 64
