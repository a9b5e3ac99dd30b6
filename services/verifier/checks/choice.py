"""Multiple choice: which letters a response chooses."""

import re

from pydantic import Field

from services.verifier.checks.check import AnswerKey, Case, Judgement, TextCheck, read_key
from services.verifier.checks.final_answer import extract_final_answer
from shared.errors import InvalidInput
from shared.protocol.thought import strip_thinking
from shared.protocol.verdict import Outcome, VerdictItem

_RULE = "choice"
_MAX_ANSWER_CHARACTERS = 1_000
_MAX_BARE_LINE = 8

_STYLE = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|bf|rm)(?![a-zA-Z])|[{}$*]|\\[ ,!]")
_OPTION = re.compile(r"\s*(?:option\s+|choice\s+)?(?:\(([a-z])\)|([a-z])\s*(?:[.:)]|\Z))", re.IGNORECASE)
# A second letter behind the first: "(A) or (B)", "A. or B"
_ANOTHER = re.compile(r"\([a-z]\)|(?:\bor\b|\band\b|[,;/])\s*(?:option\s+)?[a-z]\s*(?:[.:),;]|\Z)", re.IGNORECASE)
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:\s*+(?:(?:,|;|and)\s*+)?\(?[A-Z]\)?)*+\s*+\.?")
_ANSWER_LINE = re.compile(r"(?:answer|option|choice)(?:\s++is)?\s*+:?\s*+(\S++)\s*+\Z", re.IGNORECASE)


class ChoiceKey(AnswerKey):
    """The right letter, or all right letters, as "A, C" or "AC"."""

    gold: str = Field(min_length=1, max_length=64)


class ChoiceCheck(TextCheck[frozenset[str]]):
    """Right if the response chooses exactly the gold's letters."""

    kind = "choice"

    def prepare(self, item: VerdictItem) -> Case[frozenset[str]]:
        key = read_key(ChoiceKey, item)
        gold = _parse_letters(key.gold)
        if not gold:
            raise InvalidInput(f"item {item.id!r}: gold {key.gold!r} is no choice; give letters as 'B' or 'A, C'")
        return Case(item.response, gold, item.limits)

    def judge_text(self, case: Case[frozenset[str]]) -> Judgement:
        choice = _extract_choice(case.response)
        if choice is None:
            return Judgement(0.0, Outcome.NO_ANSWER, "no boxed letter and no last line 'Answer: X'", _RULE)
        chosen = _parse_letters(choice)
        if not chosen:
            return Judgement(0.0, Outcome.WRONG, "the final answer is not a letter", _RULE)
        if chosen == case.key:
            return Judgement(1.0, Outcome.RIGHT, rule=_RULE)
        return Judgement(0.0, Outcome.WRONG, f"chose {', '.join(sorted(chosen))}", _RULE)


def _extract_choice(response: str) -> str | None:
    """The content of the boxes, joined; without a box, what the last line says: `X` or `Answer: X`."""
    answer = extract_final_answer(response, _MAX_ANSWER_CHARACTERS)
    if answer is not None:
        return ",".join(answer.stated)
    text = strip_thinking(response)
    if text is None or "\\boxed" in text:
        return None
    last_line = text.rstrip().rpartition("\n")[2][-_MAX_ANSWER_CHARACTERS:].strip()
    if len(last_line) <= _MAX_BARE_LINE:
        return last_line or None
    named = _ANSWER_LINE.search(last_line.rstrip("*$. "))
    return named[1] if named else None


def _parse_letters(text: str) -> frozenset[str]:
    """The letters of `C`, `(C)`, `C) Paris` or `A, C`; empty if the text is no choice."""
    plain = _STYLE.sub("", text).strip()
    if _SEVERAL.fullmatch(plain):
        return frozenset(letter for letter in plain if letter.isupper())
    option = _OPTION.match(plain)
    if option is None or _ANOTHER.search(plain, option.end()):
        return frozenset()
    return frozenset((option[1] or option[2]).upper())
