"""Scores of single tokens, and where a draw may be forked between two of them."""

from collections.abc import Sequence
from enum import StrEnum

from shared.tree.draw import Draw


class TokenScore(StrEnum):
    """How uncertain the policy was where it sampled a token (METHOD, S-1 and S-2)."""

    SURPRISE = "surprise"
    """S-1: −log p of the sampled token."""
    ENTROPY = "entropy"
    """S-2: the entropy of the distribution that it was sampled from."""


SCORED_BY = "How tokens are scored: surprise, −log p of the sampled token, or entropy, of all that could be sampled"


def token_scores(draw: Draw, score: TokenScore) -> Sequence[float]:
    """Of each new token, in nats; 0 of one that was given. ValueError where the draw has no entropies, and they are
    asked for."""
    if score is TokenScore.SURPRISE:
        return draw.of_sampled([-logprob for logprob in draw.logprobs])
    if draw.entropies is None:
        raise ValueError("token_score=entropy needs the entropies of draws, and a draw has none: use surprise")
    return draw.of_sampled(draw.entropies)


def mean_score(draw: Draw, score: TokenScore) -> float:
    """The mean over the new tokens that were sampled; 0 where all were given."""
    return sum(token_scores(draw, score)) / max(draw.num_sampled, 1)


def forkable(draw: Draw) -> list[int]:
    """How many of its new tokens a branch of the draw may keep: some, not all, none inside a leaf that the limit cut,
    and never so many that a given token comes next, which the branch would sample."""
    stop = len(draw.token_ids)
    if draw.is_cut:
        leaf_start = draw.step_ends[-2] if len(draw.step_ends) > 1 else draw.cut
        stop = leaf_start - draw.cut + 1
    is_sampled = draw.is_sampled
    return [kept for kept in range(1, stop) if is_sampled[kept]]


def first_answer(draws: Sequence[Draw], draw_id: int) -> int:
    """The draw from the prompt whose tree the draw is in."""
    while (parent := draws[draw_id].parent) is not None:
        draw_id = parent
    return draw_id
