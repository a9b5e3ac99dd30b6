"""An answer's text with the forms it can be read as."""

import re
from dataclasses import dataclass

from services.verifier.checks.math.forms import Form
from services.verifier.checks.math.notation import Kind, spelled, tokens_of
from services.verifier.checks.math.number import number_of
from services.verifier.checks.math.parser import parse
from services.verifier.checks.math.unreadable import Unreadable

# 1,234 is a number, or the two values 1 and 234.
_THOUSANDS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
# Operations that an answer may not leave to its reader.
_UNEVALUATED = frozenset(
    r"""\sum \prod \int \iint \iiint \oint \lim \limsup \liminf \gcd \lcm \det \max \min \sup \inf \bmod \pmod \mod
    \partial \nabla \deg \dim \ker \arg \operatorname""".split()  # noqa: SIM905
)
_JOINTS = frozenset({",", ";", "and", "or", "\\pm", "\\mp", "=", "<", ">", "\\le", "\\ge", "\\approx"})


@dataclass(frozen=True, slots=True)
class Reading:
    """`forms` has every form that the text can be read as; none when it is not readable here."""

    text: str
    forms: tuple[Form, ...]
    why_unreadable: str = ""

    @property
    def tokens(self) -> list[tuple[Kind, str]]:
        """The text's tokens in one spelling."""
        return [(token.kind, token.text) for token in tokens_of(spelled(self.text))]


def read(text: str) -> Reading:
    """Reads an answer; what cannot be read says why."""
    number = number_of(text)
    if number is not None and "," not in text:
        return Reading(text, (number,))
    forms: dict[Form, None] = {}
    reasons = []
    for written in dict.fromkeys((_THOUSANDS.sub(lambda found: found[0].replace(",", ""), text), text)):
        try:
            forms[parse(written)] = None
        except Unreadable as error:
            reasons.append(str(error))
    return Reading(text, tuple(forms), "" if forms else reasons[0])


def left_unevaluated(gold: Reading, answer: Reading) -> str | None:
    """The first operation or joint in the answer's text that the gold's does not have (as often), or None."""
    owed, given = gold.tokens, answer.tokens
    for _, text in given:
        if text in _UNEVALUATED and all(text != other for _, other in owed):
            return text
        if text.strip() in _JOINTS and _count(text, given) > _count(text, owed):
            return text
    return None


def _count(text: str, tokens: list[tuple[Kind, str]]) -> int:
    return sum(text == other for _, other in tokens)
