"""A request to a rollout replica for the log-probabilities of given texts, and its answer."""

from typing import Annotated

from pydantic import FailFast, Field, model_validator

from shared.protocol.grow import GivenPrompt
from shared.protocol.message import BoundedErrors, Message
from shared.protocol.task import Temperature
from shared.tree.draw import WeightVersion

MAX_SCORED_ITEMS = 1024
"""Of one request."""


class ScoringItem(GivenPrompt):
    """A prompt, and what comes after it: a text, which is made tokens by itself, or token ids."""

    continuation: str | None = Field(None, min_length=1)
    continuation_ids: tuple[int, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_continuation(self) -> "ScoringItem":
        if (self.continuation is None) == (self.continuation_ids is None):
            raise ValueError("give one of continuation (text) and continuation_ids (token ids)")
        return self


class ScoringRequest(BoundedErrors):
    """Continuations to score; nothing is sampled. `deadline_seconds` counts from its arrival, for all of them."""

    items: Annotated[tuple[ScoringItem, ...], FailFast()] = Field(min_length=1, max_length=MAX_SCORED_ITEMS)
    temperature: Temperature = 1.0
    deadline_seconds: float = Field(60.0, gt=0, le=3600)


class ScoredContinuation(Message):
    """The tokens of one continuation, with the log-probability of each and their sum, under the temperature-scaled full
    softmax of the weights `version`. Of the prompt's tokens `cached_tokens` came from the prefix cache."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    logprob: float
    version: WeightVersion
    prompt_tokens: int
    cached_tokens: int


class ScoringResponse(Message):
    """One for each item, in their order."""

    scores: tuple[ScoredContinuation, ...]
