"""A row of the batch: a request in flight, and what has been computed of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.rollout.engines.embedded.radix import RadixNode
from services.rollout.engines.engine import Completion, Request, ScoreRequest, TokenScores
from shared.tree.draw import Finish, VersionSpan, WeightVersion


@dataclass(slots=True, eq=False)
class Row:
    """A prompt, and the log-probabilities of what follows it. The first `num_computed` of `token_ids` have keys and
    values; `version_starts` says from which new token on which weights computed it."""

    prompt: tuple[int, ...]
    token_ids: list[int]
    num_computed: int = 0
    logprobs: list[float] = field(default_factory=list)
    version_starts: list[tuple[WeightVersion, int]] = field(default_factory=list)
    cached_tokens: int = 0
    pinned: RadixNode | None = None
    is_cancelled: bool = False

    @property
    def num_missing(self) -> int:
        """Tokens to compute before the newest can be fed."""
        return len(self.token_ids) - 1 - self.num_computed

    @property
    def num_first_tokens(self) -> int:
        """The most tokens that the decode which admits it computes of it."""
        return len(self.token_ids)


@dataclass(slots=True, eq=False)
class CompletionRow(Row):
    """A continuation that is being sampled: `token_ids` holds the prompt and the sampled tokens."""

    request: Request = field(kw_only=True)
    uniform: Callable[[], float] = field(kw_only=True)
    sampling_logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, request: Request) -> "CompletionRow":
        """A new row, with a random generator of its own so that other rows do not influence it."""
        uniform = random.Random(request.seed).random
        return cls(request.token_ids, list(request.token_ids), request=request, uniform=uniform)

    @property
    def is_finished(self) -> bool:
        return self._is_stopped or len(self.logprobs) >= self.request.max_tokens

    @property
    def _is_stopped(self) -> bool:
        return bool(self.logprobs) and self.token_ids[-1] in self.request.stop_ids

    def append(self, token_id: int, logprob: float, sampling_logprob: float, entropy: float) -> None:
        """Appends a sampled token."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.sampling_logprobs.append(sampling_logprob)
        self.entropies.append(entropy)

    def completion(self) -> Completion:
        """Of a finished row."""
        return Completion(
            token_ids=tuple(self.token_ids[len(self.prompt) :]),
            logprobs=tuple(self.logprobs),
            sampling_logprobs=tuple(self.sampling_logprobs) if self.request.sampling.cuts_support else None,
            spans=self._spans(),
            finish=Finish.STOP if self._is_stopped else Finish.LENGTH,
            cached_tokens=self.cached_tokens,
            entropies=tuple(self.entropies) if self.request.with_entropies else None,
        )

    def _spans(self) -> tuple[VersionSpan, ...]:
        ends = [*(start for _, start in self.version_starts[1:]), len(self.logprobs)]
        return tuple(
            VersionSpan(version, start, end)
            for (version, start), end in zip(self.version_starts, ends, strict=True)
            if start < end
        )


@dataclass(slots=True, eq=False)
class ScoreRow(Row):
    """A given continuation that is being scored. `token_ids` is the prompt alone: what follows it is not cached."""

    continuation: tuple[int, ...] = field(kw_only=True)
    temperature: float = field(kw_only=True)

    @classmethod
    def of(cls, request: ScoreRequest) -> "ScoreRow":
        """A new row."""
        return cls(
            request.token_ids,
            list(request.token_ids),
            continuation=request.continuation,
            temperature=request.scale,
        )

    @property
    def num_first_tokens(self) -> int:
        return len(self.token_ids) + len(self.continuation) - 1

    @property
    def is_finished(self) -> bool:
        return len(self.logprobs) == len(self.continuation)

    @property
    def position(self) -> int:
        """Of the token after which the next one is scored: first the prompt's last, then the continuation's own."""
        return len(self.prompt) - 1 + len(self.logprobs)

    def next_tokens(self, limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """At most `limit` tokens to feed from `position` on, and those to score after each."""
        done = len(self.logprobs)
        wanted = self.continuation[done : done + limit]
        before = self.continuation[done - 1] if done else self.prompt[-1]
        return (before, *wanted[:-1]), wanted

    def scores(self) -> TokenScores:
        """Of a finished row."""
        [(version, _)] = self.version_starts
        return TokenScores(tuple(self.logprobs), version, self.cached_tokens)
