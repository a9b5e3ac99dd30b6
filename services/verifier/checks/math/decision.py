"""What is decided about an answer in this process: right, wrong, or left to the workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.checks.final_answer import FinalAnswer
from services.verifier.checks.math.comparing.compare import compare
from services.verifier.checks.math.comparing.equivalence import Equivalence, any_of
from services.verifier.checks.math.comparing.unevaluated import find_unevaluated_token
from services.verifier.checks.math.reading.forms import FiniteSet, Text, ValueList
from services.verifier.checks.math.reading.number import parse_number
from services.verifier.checks.math.reading.parsed_answer import ParsedAnswer, parse_answer


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, the rule that made it, and the answer's text where UNKNOWN leaves it to the workers."""

    equivalence: Equivalence
    rule: str
    reason: str = ""
    text: str = ""


_SAME_NUMBER = Decision(Equivalence.SAME, "number")
_OTHER_NUMBER = Decision(Equivalence.DIFFERENT, "number", "another number than the gold")


def decide(gold: ParsedAnswer, answer: FinalAnswer) -> Decision:
    """Compares the final answer with the gold."""
    if len(answer.stated) == 1 and len(gold.forms) == 1:
        number = parse_number(answer.stated[0])
        if number is not None and (owed := parse_number(gold.text)) is not None:
            return _SAME_NUMBER if number == owed else _OTHER_NUMBER
    decisions = [_decide_text(gold, text) for text in _candidates(gold, answer)]
    if len(answer.stated) > 1:
        decisions.append(_decide_restated(gold, answer.stated))
    for equivalence in (Equivalence.SAME, Equivalence.UNKNOWN):
        for decision in decisions:
            if decision.equivalence is equivalence:
                return decision
    return decisions[0]


def _candidates(gold: ParsedAnswer, answer: FinalAnswer) -> list[str]:
    """The texts that the boxes can mean. Several boxes are one list; only a gold of several values has it judged."""
    texts = [", ".join(answer.stated)]
    num_values = max((len(form.items) for form in gold.forms if isinstance(form, ValueList | FiniteSet)), default=1)
    if num_values > 1 or not gold.forms:
        texts.append(answer.stated[-1])
        if len(answer.boxes) == num_values:
            texts.append(", ".join(answer.boxes))
    return list(dict.fromkeys(texts))


def _decide_restated(gold: ParsedAnswer, texts: Sequence[str]) -> Decision:
    r"""One value boxed in several ways, as \\boxed{1.5} or \\boxed{\\frac{3}{2}}: all of them have to be right."""
    same = all(_decide_text(gold, text).equivalence is Equivalence.SAME for text in texts)
    return Decision(Equivalence.of(same), "form", "" if same else "several answers, not all of them right")


def _decide_text(gold: ParsedAnswer, text: str) -> Decision:
    answer = parse_answer(text)
    if answer.is_written_as(gold):
        return Decision(Equivalence.SAME, "text")
    if any(isinstance(form, Text) for form in gold.forms) and answer.words == gold.words:
        return Decision(Equivalence.SAME, "words")
    undone = find_unevaluated_token(gold, answer) if not (gold.forms and answer.forms) else None
    if undone is not None:
        return Decision(Equivalence.DIFFERENT, "unevaluated", f"{undone} is left in it, which the gold does not have")
    if not answer.forms and gold.forms:
        return Decision(
            Equivalence.DIFFERENT, "unreadable", f"not readable as an answer: {answer.unreadable_reason}"[:200]
        )
    if not answer.forms or not gold.forms:
        return Decision(Equivalence.UNKNOWN, "math-verify", text=text)
    equivalence = any_of(compare(owed, given) for owed in gold.forms for given in answer.forms)
    if equivalence is Equivalence.UNKNOWN:
        return Decision(equivalence, "math-verify", text=text)
    return Decision(equivalence, "form", "" if equivalence is Equivalence.SAME else "not the same as the gold")
