"""Scores the continuations of HTTP requests: texts to tokens, all of a request at once, within its deadline."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.rollout.engines.engine import Engine, ScoreRequest, TokenScores
from services.rollout.metrics import RolloutMetrics, ScoreResult
from services.rollout.policy_receiver import PolicyReceiver
from shared.errors import DeadlineExceeded, IbtpoError, InvalidInput, Overloaded
from shared.protocol.score import ScoredContinuation, ScoringItem, ScoringRequest, ScoringResponse


class OnDemandScores:
    """At most `max_scores` continuations at once, of all requests together."""

    def __init__(self, engine: Engine, policy: PolicyReceiver, metrics: RolloutMetrics, max_scores: int) -> None:
        self._engine = engine
        self._policy = policy
        self._metrics = metrics
        self._max_scores = max_scores
        self._num_scored = 0

    async def score(self, request: ScoringRequest) -> ScoringResponse:
        """InvalidInput, naming the item, for one that can never be scored: none of the others is scored then."""
        with self._admit(len(request.items)):
            try:
                async with asyncio.timeout(request.deadline_seconds):
                    asked = [
                        await self._encode(number, item, request.temperature)
                        for number, item in enumerate(request.items)
                    ]
                    scores = await self._score_all(asked)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"not all of {len(request.items)} continuations were scored within {request.deadline_seconds:g} s: "
                    "send fewer, or give a longer deadline_seconds"
                ) from error
        return ScoringResponse(scores=tuple(map(_describe, asked, scores)))

    @contextmanager
    def _admit(self, num_items: int) -> Iterator[None]:
        """Counts items as scored while the block runs; Overloaded if they are too many with those of others."""
        if num_items > self._max_scores:
            raise InvalidInput(f"{num_items} items, over the {self._max_scores} of this replica: send them in parts")
        if self._num_scored + num_items > self._max_scores:
            raise Overloaded(
                f"{self._num_scored} continuations are being scored, and {num_items} more are over the "
                f"{self._max_scores} of this replica: try later"
            )
        self._num_scored += num_items
        try:
            yield
        finally:
            self._num_scored -= num_items

    async def _encode(self, number: int, item: ScoringItem, temperature: float) -> ScoreRequest:
        """The item as token ids."""
        await asyncio.sleep(0)  # many texts do not hold up the loop
        policy = self._policy
        try:
            prompt = item.prompt_ids or await policy.encode(
                item.messages or item.prompt or "", item.chat_template_kwargs
            )
            given = item.continuation_ids or await policy.encode_continuation(item.continuation or "")
            request = ScoreRequest(prompt, given, temperature, group=hash(prompt))
            self._engine.limits.check_score(request)
        except InvalidInput as error:
            raise InvalidInput(f"items.{number}: {error}") from error
        return request

    async def _score_all(self, asked: list[ScoreRequest]) -> list[TokenScores]:
        try:
            async with asyncio.TaskGroup() as group:
                scoring = [group.create_task(self._score(request)) for request in asked]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in scoring]

    async def _score(self, request: ScoreRequest) -> TokenScores:
        result = ScoreResult.GIVEN_UP
        try:
            scores = await self._engine.score(request)
            result = ScoreResult.SCORED
        except IbtpoError:
            result = ScoreResult.FAILED
            raise
        finally:
            self._metrics.record_score(result, len(request.continuation))
        return scores


def _describe(request: ScoreRequest, scores: TokenScores) -> ScoredContinuation:
    return ScoredContinuation(
        token_ids=request.continuation,
        logprobs=scores.logprobs,
        logprob=sum(scores.logprobs),
        version=scores.version,
        prompt_tokens=len(request.token_ids),
        cached_tokens=scores.cached_tokens,
    )
