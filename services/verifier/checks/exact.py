"""Answers that must equal the gold text."""

from pydantic import Field

from services.verifier.checks.check import AnswerKey, Case, Judgement, TextCheck, read_key
from shared.protocol.thought import strip_thinking
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "exact"


class ExactKey(AnswerKey):
    """The right text; it is compared word by word, so that white space does not count."""

    gold: str = Field(min_length=1, max_length=100_000)
    ignore_case: bool = False


class ExactCheck(TextCheck[ExactKey]):
    """Right if the response, without its thinking part, is the gold text."""

    kind = "exact"

    def prepare(self, item: VerdictItem) -> Case[ExactKey]:
        return Case(item.response, read_key(ExactKey, item), item.limits)

    def judge_text(self, case: Case[ExactKey]) -> Judgement:
        gold = case.key.gold.split()
        # at most one word more than the gold has: the rest of a longer response is one word
        answer = (strip_thinking(case.response) or "").split(maxsplit=len(gold))
        if not answer:
            return Judgement(0.0, Outcome.NO_ANSWER, "the response is empty after its thinking part", _RULE)
        if len(answer) == len(gold) and _join(answer, case.key) == _join(gold, case.key):
            return Judgement(1.0, Outcome.RIGHT, rule=_RULE)
        return Judgement(0.0, Outcome.WRONG, "the text differs from the gold", _RULE)


def _join(words: list[str], key: ExactKey) -> str:
    text = " ".join(words)
    return text.casefold() if key.ignore_case else text
