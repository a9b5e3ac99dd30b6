"""Scores the gold answer at the step ends of draws: the likelihood value Φ (METHOD, V-Φ)."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.rollout.engines.engine import Engine, ScoreRequest
from services.rollout.vocabulary import Vocabulary
from shared.errors import InvalidInput
from shared.tree.likelihood import LikelihoodForm, LikelihoodSettings, likelihood

_MOST_AT_ONCE = 256
"""Scores that the engine has at once, of all trees: many trees end many steps together."""


@dataclass(frozen=True, slots=True)
class GoldAnswer:
    """What is scored after every step: `token_ids`, behind those that open the answer."""

    opener_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    form: LikelihoodForm

    @classmethod
    def of(cls, settings: LikelihoodSettings, answer_key: Mapping[str, Any], vocabulary: Vocabulary) -> "GoldAnswer":
        """Opener, gold and closer are made tokens together, as a policy would write them. A token in which opener and
        gold meet is scored. InvalidInput for a key without such a text."""
        gold = answer_key.get(settings.field)
        if isinstance(gold, bool) or not isinstance(gold, str | int | float) or gold == "":
            raise InvalidInput(
                f"growth.likelihood: the answer key has no text or number {settings.field!r}, its entries are "
                f"{sorted(answer_key)[:8]}: name one in growth.likelihood.field"
            )
        opener = vocabulary.encode_continuation(settings.opener)
        whole = vocabulary.encode_continuation(f"{settings.opener}{gold}{settings.closer}")
        shared = 0
        while shared < min(len(opener), len(whole)) and opener[shared] == whole[shared]:
            shared += 1
        if shared == len(whole):
            raise InvalidInput(f"growth.likelihood: the gold answer {gold!r} has no tokens in this vocabulary")
        return cls(whole[:shared], whole[shared:], settings.form)


@dataclass(frozen=True, slots=True)
class StepLikelihoods:
    """Φ at each step end of a draw, and how many tokens were scored for it."""

    values: tuple[float, ...]
    scored_tokens: int


class LikelihoodScorer:
    """Scores the step ends of any number of draws; the engine batches them with everything else."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at_once = asyncio.Semaphore(_MOST_AT_ONCE)

    async def score(
        self, prompt_ids: tuple[int, ...], prefixes: Sequence[tuple[int, ...]], gold: GoldAnswer, temperature: float
    ) -> StepLikelihoods:
        """Of one draw: `prefixes` are its trajectory up to each step end. Raises what the engine raises."""

        async def score_one(prefix: tuple[int, ...]) -> float:
            prefix_ids = prompt_ids + prefix + gold.opener_ids
            async with self._at_once:
                request = ScoreRequest(prefix_ids, gold.token_ids, temperature, group=hash(prompt_ids))
                return likelihood((await self._engine.score(request)).logprobs, gold.form)

        try:
            async with asyncio.TaskGroup() as group:
                scoring = [group.create_task(score_one(prefix)) for prefix in prefixes]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        values = tuple(task.result() for task in scoring)
        return StepLikelihoods(values, len(values) * len(gold.token_ids))
