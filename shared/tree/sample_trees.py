"""Small trees with what parts of a method meet in runs, to try the user's own before one begins."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion, trajectory
from shared.tree.node import Tree, build_tree
from shared.tree.samplers import Branch, Sampler, choose_branches
from shared.tree.segmentation import Segmenter

SAMPLE_TOKENS = (*(letter.encode() for letter in "abcdefgh"), b"\n\n", b"<eos>")
_LETTERS, _BLANK_LINE, _EOS = range(8), 8, 9
_SEGMENTER = Segmenter(SAMPLE_TOKENS, frozenset([_EOS]))
_VERSION = WeightVersion(1, 0)
_STEP_TOKENS = 6
_MOST_TOKENS = 192
"""Of an answer: some are long, whatever the limit is."""
_MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Carried:
    """What the trees of a run carry beside tokens, log-probabilities and rewards."""

    entropies: bool = False
    likelihoods: bool = False
    priors: bool = False


class SampleTree(NamedTuple):
    """A tree, and what is special about it."""

    says: str
    tree: Tree
    is_usual: bool = True
    """Whether any run may have such a tree."""


def sample_trees(carried: Carried, *, merges: bool) -> Iterator[SampleTree]:
    """A plain tree, then one for each thing that parts of a method are seldom written for. Equal draws are merged in
    the last; that is usual where the run `merges`."""

    def tree(record: Sequence[Draw], merge: bool = merges) -> Tree:
        built = build_tree(record, merge)
        return replace(built, priors=(0.5,) * len(built.nodes)) if carried.priors else built

    def more(cut: int = 0, **settings: object) -> list[Draw]:
        parent = 0 if cut else None
        return [*plain, replace(_draw(rng, plain, Branch(parent, cut, 1), 9, carried), **settings)]  # type: ignore[arg-type]

    rng = random.Random(0)
    plain: list[Draw] = []
    for parent, cut, reward in ((None, 0, 1.0), (None, 0, 0.0), (None, 0, 1.0), (0, 3, 0.0), (3, 7, 1.0)):
        plain.append(replace(_draw(rng, plain, Branch(parent, cut, 1), 12, carried), reward=reward))
    yield SampleTree("on a plain tree", tree(plain))
    yield SampleTree("on a tree with an unjudged draw", tree(more(5, reward=None, final_answer=None)))
    cut_off = _draw(rng, plain, Branch(1, 4, 1), 20, carried, max_tokens=12)
    yield SampleTree("on a tree with an answer that the token limit cut", tree([*plain, cut_off]))
    yield SampleTree("on a tree whose rewards are all 0", tree([replace(one, reward=0.0) for one in plain]))
    merged = tree([*plain, plain[0], plain[1]], True)
    yield SampleTree("on a tree of equal draws, as merge_equal_draws merges them", merged, merges)


def grow_sample(
    sampler: Sampler, carried: Carried, max_tokens: int, *, merges: bool, judges: bool = True
) -> tuple[tuple[Branch, ...], ...]:
    """What a sampler chooses in the first rounds of a tree of random answers, of which some are long, cut or unjudged;
    with `judges` false, none is judged. ValueError for what cannot be drawn."""
    rng, world = random.Random(1), random.Random(2)
    longest = max(1, min(max_tokens, _MOST_TOKENS))
    draws: list[Draw] = []
    chosen: list[tuple[Branch, ...]] = []
    branches: Sequence[Branch] = (Branch(None, 0, sampler.initial_draws),)
    for round_number in range(1, _MOST_ROUNDS + 1):
        for branch in branches:
            for _ in range(branch.count):
                length = world.randint(max(1, longest // 4), 1 + longest)
                draw = _draw(world, draws, branch, length, carried, max_tokens=longest)
                is_judged = judges and len(draws) % 7 != 3
                draws.append(draw if is_judged else replace(draw, reward=None, final_answer=None, finish=Finish.STOP))
        branches, rng = choose_branches(sampler, build_tree(draws, merges), round_number, rng)
        if not branches:
            break
        chosen.append(tuple(branches))
    return tuple(chosen)


def _draw(
    rng: random.Random, before: Sequence[Draw], branch: Branch, length: int, carried: Carried, max_tokens: int = 1 << 30
) -> Draw:
    """An answer of random letters in steps that blank lines part, which ends after `length` tokens of the trajectory
    or, if that is later, by the token limit."""
    prefix = () if branch.parent is None else trajectory(before, branch.parent)[: branch.cut]
    length = max(length, branch.cut + 2)
    is_cut = length > max_tokens
    length = max(min(length, max_tokens), branch.cut + 1)
    new = [rng.choice(_LETTERS) if at % _STEP_TOKENS else _BLANK_LINE for at in range(branch.cut + 1, length + 1)]
    token_ids = tuple(new if is_cut else [*new[:-1], _EOS])
    count, step_ends = len(token_ids), _SEGMENTER.step_ends(prefix, token_ids)
    reward = float(rng.random() < 0.5)
    return Draw(
        parent=branch.parent,
        cut=branch.cut,
        token_ids=token_ids,
        logprobs=tuple(-2.0 * rng.random() for _ in range(count)),
        step_ends=step_ends,
        spans=(VersionSpan(_VERSION, 0, count),),
        finish=Finish.LENGTH if is_cut else Finish.STOP,
        reward=0.0 if is_cut else reward,
        final_answer=str(int(reward)),
        step_likelihoods=tuple(rng.random() for _ in step_ends) if carried.likelihoods else None,
        entropies=tuple(2.0 * rng.random() for _ in range(count)) if carried.entropies else None,
    )
