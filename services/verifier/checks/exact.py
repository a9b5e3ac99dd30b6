"""Answers that must equal the gold text."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from services.verifier.checks.answer_key import AnswerKey, read_key
from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.checks.final_answer import strip_thinking
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "exact"


class ExactKey(AnswerKey):
    """The right text; it is compared word by word, so that white space does not count."""

    gold: str = Field(min_length=1, max_length=100_000)
    ignore_case: bool = False


class ExactCheck:
    """Right if the response, without its thinking part, is the gold text."""

    kind = "exact"
    is_repeatable = True

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"ready": True}

    def prepare(self, item: VerdictItem) -> Case[ExactKey]:
        return Case(item.response, read_key(ExactKey, item), item.limits)

    async def judge(self, cases: Sequence[Case[ExactKey]], report: ReportJudgement) -> None:
        for position, case in enumerate(cases):
            report(position, _judge(case))


def _judge(case: Case[ExactKey]) -> Judgement:
    answer = _words(strip_thinking(case.response), case.key.ignore_case)
    if not answer:
        return Judgement(0.0, Outcome.NO_ANSWER, "the response is empty after its thinking part", _RULE)
    if answer == _words(case.key.gold, case.key.ignore_case):
        return Judgement(1.0, Outcome.RIGHT, rule=_RULE)
    return Judgement(0.0, Outcome.WRONG, "the text differs from the gold", _RULE)


def _words(text: str | None, ignore_case: bool) -> list[str]:
    words = (text or "").split()
    return [word.casefold() for word in words] if ignore_case else words
