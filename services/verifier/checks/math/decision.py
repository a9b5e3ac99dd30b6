"""Decides in this process whether an answer is right or wrong, or leaves it to a worker."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.checks.final_answer import FinalAnswer
from services.verifier.checks.math.comparing.compare import compare
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated_token
from services.verifier.checks.math.reading.forms import FiniteSet, Text, ValueList
from services.verifier.checks.math.reading.number import parse_number
from services.verifier.checks.math.reading.parsed_answer import MAX_PARSED_CHARACTERS, ParsedAnswer, parse_answer


@dataclass(frozen=True, slots=True)
class Decision:
    """The result and the rule that gave it. If it is UNKNOWN, a worker compares `text` with the gold."""

    equivalence: Equivalence
    rule: str
    reason: str = ""
    text: str = ""


_SAME_NUMBER = Decision(Equivalence.SAME, "number")
_SAME_TEXT = Decision(Equivalence.SAME, "text")
_DIFFERENT_NUMBER = Decision(Equivalence.DIFFERENT, "number", "another number than the gold")


def decide_as_written(gold: str, answer: FinalAnswer) -> Decision | None:
    """Right if the answer is the gold letter by letter: most right ones are, and need no reading. Else None."""
    if answer.stated != (gold,):
        return None
    return _SAME_NUMBER if gold.isdecimal() or parse_number(gold) is not None else _SAME_TEXT


def decide(gold: ParsedAnswer, answer: FinalAnswer) -> Decision:
    if len(answer.stated) == 1 and len(gold.forms) == 1:
        number = parse_number(answer.stated[0])
        if number is not None and (gold_number := parse_number(gold.text)) is not None:
            return _SAME_NUMBER if number == gold_number else _DIFFERENT_NUMBER
    decisions = [_decide_text(gold, text) for text in _candidates(gold, answer)]
    if len(answer.stated) > 1:
        decisions.append(_decide_repeated(gold, answer.stated))
    return max(decisions, key=lambda decision: decision.equivalence)


def _candidates(gold: ParsedAnswer, answer: FinalAnswer) -> list[str]:
    """What the boxes may say together. Only a gold of several values may be met by boxes outside the last sentence."""
    texts = [", ".join(answer.stated)]
    if answer.without_percent is not None:
        texts.append(answer.without_percent)
    num_values = max((len(form.items) for form in gold.forms if isinstance(form, ValueList | FiniteSet)), default=1)
    if num_values > 1 or not gold.forms:
        texts.append(answer.stated[-1])
        if len(answer.boxes) == num_values:
            texts.append(", ".join(answer.boxes))
    return list(dict.fromkeys(texts))


def _decide_repeated(gold: ParsedAnswer, texts: Sequence[str]) -> Decision:
    r"""One value in several boxes, as \boxed{1.5} or \boxed{\frac{3}{2}}: each of them must be right."""
    is_short = sum(map(len, texts)) <= MAX_PARSED_CHARACTERS  # so that many boxes cost no more than one
    same = is_short and all(_decide_text(gold, text).equivalence is Equivalence.SAME for text in texts)
    return Decision(Equivalence.of(same), "form", "" if same else "several answers, not all of them right")


def _decide_text(gold: ParsedAnswer, text: str) -> Decision:
    answer = parse_answer(text)
    if answer.is_written_as(gold):
        return _SAME_TEXT
    if any(isinstance(form, Text) for form in gold.forms) and answer.words == gold.words:
        return Decision(Equivalence.SAME, "words")
    left = find_unevaluated_token(gold, answer) if not (gold.forms and answer.forms) else None
    if left is not None:
        return Decision(Equivalence.DIFFERENT, "unevaluated", f"{left} is left in it, which the gold does not have")
    if not answer.forms and gold.forms:
        return Decision(
            Equivalence.DIFFERENT, "unreadable", f"not readable as an answer: {answer.unreadable_reason}"[:200]
        )
    if not gold.forms and gold.has_words:
        return Decision(Equivalence.DIFFERENT, "unreadable", "not written as the gold, which is compared as written")
    if not answer.forms or not gold.forms:
        return Decision(Equivalence.UNKNOWN, "math-verify", text=text)
    equivalence = max(compare(gold_form, form) for gold_form in gold.forms for form in answer.forms)
    if equivalence is Equivalence.UNKNOWN:
        return Decision(equivalence, "math-verify", text=text)
    return Decision(equivalence, "form", "" if equivalence is Equivalence.SAME else "not the same as the gold")
