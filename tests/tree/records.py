"""Records of draws for tests: written by hand, or drawn by hypothesis from a tiny language with a consistent policy."""

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st

from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion, trajectory
from shared.tree.segmentation import Segmenter

A, B, BLANK_LINE, EOS = 0, 1, 2, 3
SEGMENTER = Segmenter([b"a", b"b", b"\n\n", b"<eos>"], frozenset([EOS]))
VERSION = WeightVersion(0, 1)

quick = settings(max_examples=60, deadline=None)


def policy_logprob(prefix: Sequence[int], token: int) -> float:
    """A policy as good as any: what it says of a token depends on the prefix alone."""
    return math.log(policy(prefix)[token])


def policy(prefix: Sequence[int]) -> list[float]:
    """The probability of each of the four tokens."""
    odds = [1 + (7 * sum(prefix) + 3 * len(prefix) + 5 * other) % 11 for other in range(4)]
    return [each / sum(odds) for each in odds]


def draw(
    token_ids: Sequence[int],
    reward: float | None = 1.0,
    *,
    before: Sequence[Draw] = (),
    parent: int | None = None,
    cut: int = 0,
    finish: Finish | None = None,
    version: WeightVersion = VERSION,
    logprobs: Sequence[float] | None = None,
    entropies: Sequence[float] | None = None,
) -> Draw:
    """A draw of the tiny language that continues the first `cut` tokens of `before[parent]`'s trajectory."""
    prefix = () if parent is None else trajectory(before, parent)[:cut]
    whole = (*prefix, *token_ids)
    return Draw(
        parent=parent,
        cut=cut,
        token_ids=tuple(token_ids),
        logprobs=tuple(
            [policy_logprob(whole[:at], whole[at]) for at in range(cut, len(whole))] if logprobs is None else logprobs
        ),
        step_ends=SEGMENTER.step_ends(prefix, token_ids),
        spans=(VersionSpan(version, 0, len(token_ids)),),
        finish=finish or (Finish.STOP if token_ids[-1] == EOS else Finish.LENGTH),
        reward=reward,
        entropies=tuple(
            [entropy(policy(whole[:at])) for at in range(cut, len(whole))] if entropies is None else entropies
        ),
    )


def entropy(probs: Sequence[float]) -> float:
    """In nats."""
    return -sum(prob * math.log(prob) for prob in probs if prob)


_REWARDS = st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.25])
_CONTENT = st.lists(st.sampled_from([A, B, BLANK_LINE]), max_size=6)


@st.composite
def _continuations(draw_: st.DrawFn, prefix_length: int, max_tokens: int) -> tuple[int, ...]:
    content = draw_(_CONTENT)
    return (*content, EOS)[: max_tokens - prefix_length]


@st.composite
def records(
    draw_: st.DrawFn, *, max_branches: int = 5, min_first: int = 1, unjudged: bool = False, max_tokens: int = 8
) -> tuple[Draw, ...]:
    """A record of growth: draws from the prompt, then branches at any token of any draw."""
    rewards = st.none() | _REWARDS if unjudged else _REWARDS
    draws: list[Draw] = []
    for _ in range(draw_(st.integers(min_first, 4))):
        draws.append(draw(draw_(_continuations(0, max_tokens)), draw_(rewards)))
    for _ in range(draw_(st.integers(0, max_branches))):
        forkable = [i for i, one in enumerate(draws) if len(one.token_ids) > 1]
        if not forkable:
            break
        parent = draw_(st.sampled_from(forkable))
        cut = draw_(st.integers(draws[parent].cut + 1, draws[parent].end - 1))
        new = draw_(_continuations(cut, max_tokens))
        draws.append(draw(new, draw_(rewards), before=draws, parent=parent, cut=cut))
    return tuple(draws)


def permuted(draws: Sequence[Draw], order: Sequence[int]) -> tuple[Draw, ...]:
    """The same record in another order, in which parents still come first."""
    place = {draw_id: at for at, draw_id in enumerate(order)}
    return tuple(
        replace(draws[i], parent=None if (parent := draws[i].parent) is None else place[parent]) for i in order
    )


@st.composite
def orders(draw_: st.DrawFn, draws: Sequence[Draw]) -> list[int]:
    """An order of the draws in which parents come first."""
    order: list[int] = []
    while len(order) < len(draws):
        ready = [i for i, one in enumerate(draws) if i not in order and (one.parent is None or one.parent in order)]
        order.append(draw_(st.sampled_from(ready)))
    return order
