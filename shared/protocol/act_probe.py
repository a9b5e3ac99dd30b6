"""The act-probe: a fixed sequence of tokens whose log-probabilities tell whether loaded weights act as published."""

from collections.abc import Sequence
from math import ceil, fsum, isfinite
from typing import Self

from shared.protocol.message import Message
from shared.tree.draw import WeightVersion

MOST_TOKENS = 64
FLOAT32_TOLERANCE = 0.01
"""Nats, between two sides that both compute in float32, which differ by less than 0.001."""
ROUNDED_TOLERANCE = 0.25
"""Nats, where both round to bfloat16, or the learner alone (docs/method.md: what was measured)."""
REROUNDED_TOLERANCE = 1.0
"""Nats, where the learner computes in float32 and the replica rounds: the weights too are other ones then."""
_SHARE_WITHIN = 0.75
_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407
"""Of Knuth's MMIX generator."""
_DIGITS = 4


def probe_tokens(vocab_size: int, context_length: int) -> tuple[int, ...]:
    """METHOD, W-1: at most 64 tokens, and fewer than the context holds. Those of a shorter context are the first of
    these."""
    state, token_ids = vocab_size, []
    for _ in range(min(MOST_TOKENS, context_length - 1)):
        state = (_MULTIPLIER * state + _INCREMENT) % 2**64
        token_ids.append((state >> 32) * vocab_size >> 32)
    return tuple(token_ids)


class ActReading(Message):
    """What weights say of the act-probe (METHOD, W-2)."""

    version: WeightVersion
    """The weights that scored it."""
    vocab_size: int
    logprob: float | None
    """Mean over the tokens; None where one is not finite."""
    logprobs: tuple[float, ...] = ()
    """Of each token but the first; empty where one is not finite, and where they were left out."""
    is_float32: bool = False
    """Whether all of it was computed in float32."""

    @classmethod
    def of(cls, version: WeightVersion, vocab_size: int, logprobs: Sequence[float], *, is_float32: bool) -> Self:
        """Of the log-probabilities of all tokens but the first, of which there is at least one."""
        if not all(map(isfinite, logprobs)):
            return cls(version=version, vocab_size=vocab_size, logprob=None, is_float32=is_float32)
        return cls(
            version=version,
            vocab_size=vocab_size,
            logprob=round(fsum(logprobs) / len(logprobs), _DIGITS),
            logprobs=tuple(round(logprob, _DIGITS) for logprob in logprobs),
            is_float32=is_float32,
        )

    def brief(self) -> Self:
        """Without the tokens' log-probabilities."""
        return self.model_copy(update={"logprobs": ()})


def act_distance(published: ActReading, served: ActReading) -> float | None:
    """METHOD, W-3: nats, over the tokens that both scored; None where they are not comparable. A quarter of the tokens
    may be further apart: rounding moves few of them far."""
    if (published.version, published.vocab_size) != (served.version, served.vocab_size):
        return None
    pairs = zip(published.logprobs, served.logprobs, strict=False)
    gaps = sorted(abs(ours - theirs) for ours, theirs in pairs)
    return gaps[ceil(_SHARE_WITHIN * len(gaps)) - 1] if gaps else None


def find_fault(published: ActReading, served: ActReading, tolerance: float | None = None) -> str:
    """Why weights do not act as the learner published them; empty where they do, and where nobody can tell.
    `tolerance`: in nats; None: what rounding explains."""
    if published.logprob is None or published.version != served.version:
        return ""
    name = f"weights {served.version} do not act as published"
    if served.logprob is None:
        return f"{name}: log-probabilities of the act-probe are not finite"
    distance = act_distance(published, served)
    tolerance = tolerance or _tolerance(published, served)
    if distance is None or distance <= tolerance:
        return ""
    return (
        f"{name}: {distance:.3g} nats from the learner's on the act-probe, of which rounding explains {tolerance:g} "
        f"(mean {served.logprob:.3f} for {published.logprob:.3f})"
    )


def _tolerance(published: ActReading, served: ActReading) -> float:
    if not published.is_float32:
        return ROUNDED_TOLERANCE
    return FLOAT32_TOLERANCE if served.is_float32 else REROUNDED_TOLERANCE
