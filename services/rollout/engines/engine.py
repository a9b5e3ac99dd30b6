"""What a rollout needs of an inference engine: tokens to sample, or to score, after token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.errors import InvalidInput, MalformedAnswer
from shared.tree.draw import Finish, VersionSpan, WeightVersion


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen, within Growth's bounds. `top_p` 1 and `top_k` 0 leave the whole support; `temperature` 0
    is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @property
    def cuts_support(self) -> bool:
        """Whether some tokens can never be sampled, so that sampling_logprobs differ from logprobs."""
        return self.temperature > 0 and (self.top_p < 1.0 or self.top_k > 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation to sample, after the token ids of a prompt and a prefix; `with_entropies`, where each token's
    distribution is asked for its entropy.

    Requests of one `group` share prefixes: an engine with several caches serves them from the same one.
    """

    token_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int]
    seed: int
    group: int = 0
    with_entropies: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled.

    A stop token that ended it is the last of `token_ids` and has a log-probability. `logprobs` and
    `sampling_logprobs` are defined in METHOD, Log-probabilities (None: the support was not cut). `spans` partition
    the new tokens by the weights that sampled them. `cached_tokens` of the request came from the prefix cache; the
    rest were computed. `entropies` are those of METHOD, S-2, or lower bounds of them, S-2b; None: not asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...] | None
    spans: tuple[VersionSpan, ...]
    finish: Finish
    cached_tokens: int
    entropies: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Given tokens to score, `continuation`, after the token ids of a prompt and a prefix. Nothing is sampled.

    Requests of one `group` share prefixes, as those of completions do.
    """

    token_ids: tuple[int, ...]
    continuation: tuple[int, ...]
    temperature: float = 1.0
    group: int = 0

    @property
    def scale(self) -> float:
        """What logits are divided by: at temperature 0 nothing scales them, as for tokens that were chosen greedily."""
        return self.temperature or 1.0


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The log-probabilities of a given continuation's tokens under the temperature-scaled full softmax (METHOD,
    Log-probabilities), all of one version of the weights. `cached_tokens` as completions have them."""

    logprobs: tuple[float, ...]
    version: WeightVersion
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of an engine, known once weights are loaded. Token ids lie in [0, vocab_size)."""

    vocab_size: int
    context_length: int

    def check(self, request: Request) -> None:
        """InvalidInput for a request that can never be served."""
        self._check_prompt(request.token_ids)
        if request.max_tokens < 1:
            raise InvalidInput(f"max_tokens is at least 1: {request.max_tokens}")
        if (length := len(request.token_ids) + request.max_tokens) > self.context_length:
            raise InvalidInput(
                f"{len(request.token_ids)} tokens and up to {request.max_tokens} new ones make {length}, "
                f"over the context of {self.context_length}: shorten the prompt or lower growth.max_tokens"
            )

    def check_score(self, request: ScoreRequest) -> None:
        """InvalidInput for a continuation that can never be scored."""
        self._check_prompt(request.token_ids)
        self._check_ids(request.continuation)
        if not request.continuation:
            raise InvalidInput("the continuation has no tokens: there is nothing to score")
        if (length := len(request.token_ids) + len(request.continuation)) > self.context_length:
            raise InvalidInput(
                f"{len(request.token_ids)} tokens and {len(request.continuation)} to score make {length}, over the "
                f"context of {self.context_length}: shorten one of them"
            )

    def _check_prompt(self, token_ids: tuple[int, ...]) -> None:
        if not token_ids:
            raise InvalidInput("the request has no token ids: a prompt has at least one")
        self._check_ids(token_ids)

    def _check_ids(self, token_ids: tuple[int, ...]) -> None:
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self.vocab_size:
            outside = next(token for token in token_ids if not 0 <= token < self.vocab_size)
            raise InvalidInput(f"token id {outside} is outside the vocabulary [0, {self.vocab_size})")


class NotFinite(MalformedAnswer):
    """The weights give tokens a log-probability that is NaN or infinite."""


class Engine(Protocol):
    """An inference engine that serves one policy, whose weights can be replaced while requests are in flight."""

    @property
    def version(self) -> WeightVersion | None:
        """The served weights; None before the first load."""

    @property
    def limits(self) -> EngineLimits:
        """Raises Unavailable before the first load."""

    @property
    def computes_in_float32(self) -> bool:
        """Whether nothing that it serves is rounded further; as far as is known."""

    async def complete(self, request: Request) -> Completion:
        """Samples one continuation. InvalidInput for a request that can never be served, Unavailable if not now.

        Cancelling the caller frees what the request holds.
        """

    async def score(self, request: ScoreRequest) -> TokenScores:
        """The log-probabilities of given tokens. Errors and cancelling as in `complete`; NotFinite may be raised where
        one is not.

        New weights that are loaded meanwhile never mix: all tokens are scored by the old ones, or all by the new.
        """

    async def load(self, snapshot: Path, version: WeightVersion, *, afresh: bool = False) -> None:
        """Serves the policy bundle in the directory `snapshot` from now on. `afresh`: loads all of it, also where it
        serves that version already.

        Requests in flight survive: their later tokens come from the new weights, over a recomputed prefix. Raises
        InvalidInput for an unfit bundle (other shapes, NaN, unreadable); the old weights stay served then.
        """

    async def close(self) -> None:
        """Ends all requests with Unavailable and frees everything."""
