"""One row of the decode batch: a request in flight."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from services.rollout.engines.embedded.radix import RadixNode
from services.rollout.engines.engine import Completion, Request
from shared.tree.draw import Finish, VersionSpan, WeightVersion


@dataclass(slots=True, eq=False)
class Row:
    """A request and its sampled tokens. `token_ids` holds both; the first `num_computed` have keys and values."""

    request: Request
    uniform: Callable[[], float]
    token_ids: list[int]
    num_computed: int = 0
    logprobs: list[float] = field(default_factory=list)
    sampling_logprobs: list[float] = field(default_factory=list)
    version_starts: list[tuple[WeightVersion, int]] = field(default_factory=list)
    cached_tokens: int = 0
    pinned: RadixNode | None = None
    is_cancelled: bool = False

    @classmethod
    def of(cls, request: Request) -> "Row":
        """A new row, with a random generator of its own so that other rows do not influence it."""
        return cls(request, random.Random(request.seed).random, list(request.token_ids))

    @property
    def num_missing(self) -> int:
        """Tokens to compute before the newest can be fed and the next one sampled."""
        return len(self.token_ids) - 1 - self.num_computed

    @property
    def num_sampled(self) -> int:
        return len(self.logprobs)

    def append(self, token_id: int, logprob: float, sampling_logprob: float) -> Finish | None:
        """Appends a sampled token; returns how it finishes the row, None if it does not."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.sampling_logprobs.append(sampling_logprob)
        if token_id in self.request.stop_ids:
            return Finish.STOP
        return Finish.LENGTH if len(self.logprobs) >= self.request.max_tokens else None

    def completion(self, finish: Finish) -> Completion:
        return Completion(
            token_ids=tuple(self.token_ids[len(self.request.token_ids) :]),
            logprobs=tuple(self.logprobs),
            sampling_logprobs=tuple(self.sampling_logprobs) if self.request.sampling.cuts_support else None,
            spans=self._spans(),
            finish=finish,
            cached_tokens=self.cached_tokens,
        )

    def _spans(self) -> tuple[VersionSpan, ...]:
        ends = [*(start for _, start in self.version_starts[1:]), self.num_sampled]
        return tuple(
            VersionSpan(version, start, end)
            for (version, start), end in zip(self.version_starts, ends, strict=True)
            if start < end
        )
