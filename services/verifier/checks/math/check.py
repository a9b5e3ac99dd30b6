"""Mathematical answers: the final answer against the gold, exactly where that is decided at once, else by workers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from services.verifier.checks.answer_key import read_key
from services.verifier.checks.check import Case, Judgement, Report
from services.verifier.checks.final_answer import FinalAnswer, final_answer
from services.verifier.checks.math.gold import gold_text
from services.verifier.checks.math.reading import Reading, read
from services.verifier.checks.math.verdict import decide
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from shared.errors import InvalidInput
from shared.protocol.message import Message
from shared.protocol.verdict import Outcome, VerdictItem

_NO_ANSWER = Judgement(0.0, Outcome.NO_ANSWER, "no boxed answer after the last thinking part", "extraction")


class MathKey(Message):
    """The right answer, in LaTeX or plain; a text with a box stands for what is in its box."""

    gold: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Question:
    """The gold, and what the response states as its final answer."""

    gold: Reading
    answer: FinalAnswer | None


class MathCheck:
    """Right when the final answer is the gold."""

    kind = "math"
    is_repeatable = True

    def __init__(self, config: MathConfig, metrics: VerifierMetrics) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {}

    def prepare(self, item: VerdictItem) -> Case[Question]:
        gold = read_key(MathKey, item).gold
        if len(gold) > self._config.answer_characters:
            raise InvalidInput(f"item {item.id!r}: gold has {len(gold)} characters, over the limit")
        return Case("", Question(gold, final_answer(item.response, self._config.answer_characters)), item.limits)

    async def judge(self, cases: Sequence[Case[Question]], report: Report) -> None:
        for position, case in enumerate(cases):
            report(position, self._judge(case.key))

    def _judge(self, question: Question) -> Judgement:
        if question.answer is None:
            return _NO_ANSWER
        start = time.perf_counter()
        gold, answer = number_of(question.gold), number_of(question.answer.stated[-1])
        same = len(question.answer.stated) == 1 and (
            gold == answer if gold and answer else question.gold == question.answer.stated[-1]
        )
        seconds = time.perf_counter() - start
        return Judgement(float(same), Outcome.RIGHT if same else Outcome.WRONG, "", "number", seconds, seconds)
