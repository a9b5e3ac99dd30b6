"""What is decided about an answer in this process: right, wrong, or left to the workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.checks.final_answer import FinalAnswer
from services.verifier.checks.math.comparing.comparison import compare
from services.verifier.checks.math.comparing.likeness import Likeness, any_of
from services.verifier.checks.math.reading.answer import Reading, left_unevaluated, read
from services.verifier.checks.math.reading.forms import Listing, Members, Text
from services.verifier.checks.math.reading.number import number_of


@dataclass(frozen=True, slots=True)
class Finding:
    """A decision, the rule that made it, and the answer's text where UNKNOWN leaves it to the workers."""

    likeness: Likeness
    rule: str
    reason: str = ""
    text: str = ""


_SAME_NUMBER = Finding(Likeness.SAME, "number")
_OTHER_NUMBER = Finding(Likeness.DIFFERENT, "number", "another number than the gold")


def decide(gold: Reading, answer: FinalAnswer) -> Finding:
    """Compares the final answer with the gold."""
    if len(answer.stated) == 1 and len(gold.forms) == 1:
        number = number_of(answer.stated[0])
        if number is not None and (owed := number_of(gold.text)) is not None:
            return _SAME_NUMBER if number == owed else _OTHER_NUMBER
    findings = [_decide_text(gold, text) for text in _candidates(gold, answer)]
    if len(answer.stated) > 1:
        findings.append(_decide_restated(gold, answer.stated))
    for likeness in (Likeness.SAME, Likeness.UNKNOWN):
        for finding in findings:
            if finding.likeness is likeness:
                return finding
    return findings[0]


def _candidates(gold: Reading, answer: FinalAnswer) -> list[str]:
    """The texts that the boxes can mean. Several boxes are one list; only a gold of several values has it judged."""
    texts = [", ".join(answer.stated)]
    num_values = max((len(form.items) for form in gold.forms if isinstance(form, Listing | Members)), default=1)
    if num_values > 1 or not gold.forms:
        texts.append(answer.stated[-1])
        if len(answer.boxes) == num_values:
            texts.append(", ".join(answer.boxes))
    return list(dict.fromkeys(texts))


def _decide_restated(gold: Reading, texts: Sequence[str]) -> Finding:
    r"""One value boxed in several ways, as \\boxed{1.5} or \\boxed{\\frac{3}{2}}: all of them have to be right."""
    same = all(_decide_text(gold, text).likeness is Likeness.SAME for text in texts)
    return Finding(Likeness.of(same), "form", "" if same else "several answers, not all of them right")


def _decide_text(gold: Reading, text: str) -> Finding:
    answer = read(text)
    if answer.is_written_as(gold):
        return Finding(Likeness.SAME, "text")
    if any(isinstance(form, Text) for form in gold.forms) and answer.words == gold.words:
        return Finding(Likeness.SAME, "words")
    undone = left_unevaluated(gold, answer) if not (gold.forms and answer.forms) else None
    if undone is not None:
        return Finding(Likeness.DIFFERENT, "unevaluated", f"{undone} is left in it, which the gold does not have")
    if not answer.forms and gold.forms:
        return Finding(Likeness.DIFFERENT, "unreadable", f"not readable as an answer: {answer.why_unreadable}"[:200])
    if not answer.forms or not gold.forms:
        return Finding(Likeness.UNKNOWN, "math-verify", text=text)
    likeness = any_of(compare(owed, given) for owed in gold.forms for given in answer.forms)
    if likeness is Likeness.UNKNOWN:
        return Finding(likeness, "math-verify", text=text)
    return Finding(likeness, "form", "" if likeness is Likeness.SAME else "not the same as the gold")
