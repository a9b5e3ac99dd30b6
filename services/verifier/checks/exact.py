"""Answers that must equal the gold text."""

import unicodedata

from pydantic import Field

from services.verifier.checks.check import AnswerKey, Case, Judgement, TextCheck, name_answer, read_key
from services.verifier.checks.final_answer import extract_final_answer
from services.verifier.config import ExactConfig, ExactExtraction, Ways
from shared.errors import InvalidInput
from shared.protocol.thought import strip_thinking
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "exact"
_MAX_ANSWER_CHARACTERS = 100_000


class ExactKey(AnswerKey):
    """The right text; it is compared word by word, so that white space does not count, nor how accents are encoded."""

    gold: str = Field(min_length=1, max_length=100_000)
    ignore_case: bool = False
    extraction: Ways[ExactExtraction] | None = None


class ExactCheck(TextCheck[ExactKey]):
    """Right if the response, without its thinking part, is the gold text; or what it states as its final answer."""

    kind = "exact"

    def __init__(self, config: ExactConfig) -> None:
        self._config = config

    def prepare(self, item: VerdictItem) -> Case[ExactKey]:
        key = read_key(ExactKey, item)
        if not key.gold.strip():
            raise InvalidInput(f"item {item.id!r}: gold {key.gold!r} has no word; give the right text")
        extraction = key.extraction or self._config.extraction
        return Case(item.response, key.model_copy(update={"extraction": extraction}), item.limits)

    def judge_text(self, case: Case[ExactKey]) -> Judgement:
        gold = case.key.gold.split()
        # at most one word more than the gold has: the rest of a longer response is one word
        answer = _extract(case).split(maxsplit=len(gold))
        if not answer:
            return Judgement(0.0, Outcome.NO_ANSWER, "no text, or none where it is looked for", _RULE)
        text = _join(answer, case.key)
        if len(answer) == len(gold) and text == _join(gold, case.key):
            return Judgement(1.0, Outcome.RIGHT, rule=_RULE, final_answer=name_answer(text))
        return Judgement(0.0, Outcome.WRONG, "the text differs from the gold", _RULE, final_answer=name_answer(text))


def _extract(case: Case[ExactKey]) -> str:
    if case.key.extraction in (None, ("response",)):
        return strip_thinking(case.response) or ""
    found = extract_final_answer(case.response, _MAX_ANSWER_CHARACTERS, case.key.extraction)
    return found.stated[0] if found is not None and len(found.stated) == 1 else ""


def _join(words: list[str], key: ExactKey) -> str:
    text = unicodedata.normalize("NFC", " ".join(words))
    return text.casefold() if key.ignore_case else text
