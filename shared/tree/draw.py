"""The record of growth: draws, each a continuation sampled from a prefix to its end."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, chain, pairwise

_SAME_REWARD = 1e-6
_VERSION = re.compile(r"([0-9]{1,16})\.([0-9]{1,16})(?:-([0-9a-f]{1,16}))?")
_MAX_NUMBER = 2**53 - 1
"""Every encoding on the way carries such an integer unchanged, also one that counts in doubles."""


def rewards_differ(rewards: Iterable[float]) -> bool:
    """Whether some do, by more than rounding: 0.1 + 0.2 is 0.3."""
    known = tuple(rewards)
    return bool(known) and max(known) - min(known) > _SAME_REWARD


def is_full_reward(reward: float) -> bool:
    """Whether it is 1, but for rounding."""
    return reward > 1.0 - _SAME_REWARD


class Finish(StrEnum):
    """How a draw ended."""

    STOP = "stop"
    """The model ended it: its last token is the stop token."""
    LENGTH = "length"
    """The token limit cut it: reward 0, never branched (METHOD, Ends)."""
    LENGTH_JUDGED = "length_judged"
    """The token limit cut it, and its reward is the verifier's all the same."""


@dataclass(frozen=True, slots=True, order=True)
class WeightVersion:
    """Which weights: the learner's generation (its lease on the run), and the number of its update.

    Generations may begin again where a run's data was lost. `origin`, random for every lease, tells the weights of two
    such histories apart; it is empty for weights of no run. Only versions of one origin, or of one run's successive
    generations, are in order.
    """

    generation: int
    number: int
    origin: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.generation <= _MAX_NUMBER and 0 <= self.number <= _MAX_NUMBER):
            raise ValueError(f"a weight version has numbers from 0 to 2^53 - 1: {self.generation}.{self.number}")
        if self.origin and not _VERSION.fullmatch(str(self)):
            raise ValueError(f"an origin has 1 to 16 hexadecimal digits, not {self.origin!r}")

    def __str__(self) -> str:
        text = f"{self.generation}.{self.number}"
        return f"{text}-{self.origin}" if self.origin else text

    @property
    def label(self) -> str:
        """For people: `v12`, the twelfth update; once the learner has restarted, with its generation."""
        return f"v{self.number}" + (f" of generation {self.generation}" if self.generation > 1 else "")

    @classmethod
    def parse(cls, text: str) -> "WeightVersion":
        """The inverse of `str`; ValueError when `text` is not `<generation>.<number>` or that with `-<origin>`."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"a weight version reads <generation>.<number>, or that with -<origin>, not {text!r}")
        return cls(int(match[1]), int(match[2]), match[3] or "")


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """The weights that sampled the tokens [start, end) of one draw, counted in the draw's own new tokens."""

    version: WeightVersion
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Draw:
    """One continuation: its trajectory is the first `cut` tokens of its parent's trajectory, then `token_ids`.

    All positions count from the end of the prompt. `parent` is an index into the record (None: drawn from the
    prompt, `cut` 0), and the parent itself sampled the token at `cut - 1`. `step_ends` are the ascending positions
    in (cut, length] at which a step closes; the last is the trajectory's length. `logprobs` are of the
    temperature-scaled full softmax (METHOD, Log-probabilities), `sampling_logprobs` of the distribution that was
    sampled from where top-p or top-k cut it (None: the same). `spans` partition the new tokens. `reward` lies in
    [0, 1], or is None if there was no verdict; such draws are excluded from all statistics. `final_answer` is what the
    verdict says that the answer states: empty if it states none, None where nobody compares such answers.
    `step_likelihoods` are Φ at each of `step_ends`, the probability of the gold answer after it, None where nobody
    scored them (V4). `entropies` are those of the distributions of the new tokens, in nats, where the sampler asks for
    them (S-2). `given` are ascending spans [start, end) of the new tokens that were put there, such as the answer of a
    tool, and not sampled: they are never trained on, and in no probability (METHOD, Given tokens).
    """

    parent: int | None
    cut: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    step_ends: tuple[int, ...]
    spans: tuple[VersionSpan, ...]
    finish: Finish
    reward: float | None
    sampling_logprobs: tuple[float, ...] | None = None
    final_answer: str | None = None
    step_likelihoods: tuple[float, ...] | None = None
    entropies: tuple[float, ...] | None = None
    given: tuple[tuple[int, int], ...] = ()
    cumulative_logprobs: tuple[float, ...] = field(init=False, repr=False, compare=False)
    """Σ log p over the sampled ones of the first k new tokens, k = 0, 1, …: every decision about a tree sums over
    steps."""
    cumulative_sampled: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """How many of the first k new tokens were sampled."""

    def __post_init__(self) -> None:
        num_tokens = len(self.token_ids)
        if num_tokens == 0:
            raise ValueError("a draw has at least one token (the stop token counts)")
        if len(self.logprobs) != num_tokens:
            raise ValueError(f"{num_tokens} tokens but {len(self.logprobs)} logprobs")
        if self.sampling_logprobs is not None and len(self.sampling_logprobs) != num_tokens:
            raise ValueError(f"{num_tokens} tokens but {len(self.sampling_logprobs)} sampling_logprobs")
        if self.entropies is not None and len(self.entropies) != num_tokens:
            raise ValueError(f"{num_tokens} tokens but {len(self.entropies)} entropies")
        if self.cut < 0 or (self.parent is None) != (self.cut == 0):
            raise ValueError(
                f"a draw from the prompt has cut 0, another one a positive cut: {self.parent=} {self.cut=}"
            )
        ends = self.step_ends
        if not ends or ends[-1] != self.end or ends[0] <= self.cut or any(a >= b for a, b in pairwise(ends)):
            raise ValueError(f"step_ends ascend within ({self.cut}, {self.end}] and end at {self.end}: {ends}")
        if self.step_likelihoods is not None:
            _check_likelihoods(self.step_likelihoods, len(ends))
        edges = [0, *(span.end for span in self.spans)]
        if edges != [*(span.start for span in self.spans), num_tokens] or any(a >= b for a, b in pairwise(edges)):
            raise ValueError(f"spans partition the {num_tokens} new tokens: {self.spans}")
        bounds = [0, *chain.from_iterable(self.given), num_tokens]
        if any(start >= end for start, end in self.given) or any(a > b for a, b in pairwise(bounds)):
            raise ValueError(f"given spans ascend within the {num_tokens} new tokens: {self.given}")
        if self.reward is not None and not 0.0 <= self.reward <= 1.0:
            raise ValueError(f"a reward lies in [0, 1]: {self.reward}")
        object.__setattr__(self, "cumulative_logprobs", tuple(accumulate(self.of_sampled(self.logprobs), initial=0.0)))
        counts = accumulate(self.is_sampled, initial=0) if self.given else range(num_tokens + 1)
        object.__setattr__(self, "cumulative_sampled", tuple(counts))

    @property
    def is_sampled(self) -> list[bool]:
        """Of each new token: whether it was sampled, and not given."""
        found = [True] * len(self.token_ids)
        for start, end in self.given:
            found[start:end] = [False] * (end - start)
        return found

    @property
    def num_sampled(self) -> int:
        """How many of its new tokens were sampled."""
        return self.cumulative_sampled[-1]

    def of_sampled(self, values: Sequence[float]) -> Sequence[float]:
        """Values of the new tokens, 0 where a token was given."""
        if not self.given:
            return values
        return [value if is_sampled else 0.0 for value, is_sampled in zip(values, self.is_sampled, strict=True)]

    @property
    def end(self) -> int:
        """The trajectory's length in tokens."""
        return self.cut + len(self.token_ids)

    @property
    def is_cut(self) -> bool:
        """Whether the token limit ended it."""
        return self.finish is not Finish.STOP

    @property
    def counted_reward(self) -> float | None:
        """Its reward in every statistic: 0 when the limit cut it and nobody judged it, None without a verdict."""
        return 0.0 if self.finish is Finish.LENGTH else self.reward

    @property
    def oldest_version(self) -> WeightVersion:
        """The oldest weights that sampled one of its tokens."""
        return min(span.version for span in self.spans)


def _check_likelihoods(likelihoods: Sequence[float], num_steps: int) -> None:
    if len(likelihoods) != num_steps:
        raise ValueError(f"{num_steps} step ends but {len(likelihoods)} step_likelihoods")
    if strange := next((one for one in likelihoods if not 0.0 <= one <= 1.0), None):
        raise ValueError(f"a likelihood lies in [0, 1]: {strange}")


def trajectory(draws: Sequence[Draw], draw_id: int) -> tuple[int, ...]:
    """The token ids of a draw's trajectory, from the prompt's end to its own."""
    pieces, end, ancestor = [], draws[draw_id].end, draw_id
    while True:
        draw = draws[ancestor]
        pieces.append(draw.token_ids[: max(0, end - draw.cut)])
        if draw.parent is None:
            return tuple(chain.from_iterable(reversed(pieces)))
        ancestor, end = draw.parent, min(end, draw.cut)


def logprob_before(draws: Sequence[Draw], draw_id: int, position: int) -> tuple[float, int]:
    """Σ log p over the sampled tokens before a position of a draw's trajectory, and how many these are."""
    total, count, ancestor, end = 0.0, 0, draw_before(draws, draw_id, position), position
    while True:
        draw = draws[ancestor]
        at = max(0, end - draw.cut)
        total, count = total + draw.cumulative_logprobs[at], count + draw.cumulative_sampled[at]
        if draw.parent is None:
            return total, count
        ancestor, end = draw.parent, min(end, draw.cut)


def draw_before(draws: Sequence[Draw], draw_id: int, position: int) -> int:
    """Which draw sampled the token before a position, 1 or more, of a draw's trajectory."""
    while (draw := draws[draw_id]).parent is not None and position <= draw.cut:
        draw_id = draw.parent
    return draw_id
