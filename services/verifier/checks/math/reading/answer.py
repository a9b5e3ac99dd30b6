"""An answer's text with the forms it can be read as."""

import re
from collections import Counter
from dataclasses import dataclass, field

from services.verifier.checks.math.reading.forms import Form
from services.verifier.checks.math.reading.notation import Token, spelled, tokens_of
from services.verifier.checks.math.reading.number import number_of
from services.verifier.checks.math.reading.parser import parse
from services.verifier.checks.math.reading.unreadable import Unreadable
from services.verifier.checks.math.reading.words import words_key

# 1,234 is a number, or the two values 1 and 234.
_THOUSANDS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])")
# Operations that an answer may not leave to its reader.
_UNEVALUATED = frozenset(
    r"""\sum \prod \int \iint \iiint \oint \lim \limsup \liminf \gcd \lcm \det \max \min \sup \inf \bmod \pmod \mod
    \partial \nabla \deg \dim \ker \arg \operatorname""".split()  # noqa: SIM905
)
_JOINTS = frozenset({",", ";", "and", "or", "\\pm", "\\mp", "=", "<", ">", "\\le", "\\ge", "\\approx"})


# A longer text is compared as written, or by workers: reading it would keep the service from others.
_LONGEST_READ = 2_000


@dataclass(frozen=True, slots=True)
class Reading:
    """`forms` has every form that the text can be read as; none when it is not readable here."""

    text: str
    tokens: tuple[Token, ...] = field(compare=False)
    forms: tuple[Form, ...] = field(compare=False)
    why_unreadable: str = field(compare=False, default="")

    @property
    def words(self) -> str:
        """The text as words, its markup aside."""
        return words_key("".join(token.text for token in self.tokens))

    def is_written_as(self, other: "Reading") -> bool:
        """Whether the two are the same but for spelling."""
        return self.text == other.text or [(t.kind, t.text) for t in self.tokens] == [
            (t.kind, t.text) for t in other.tokens
        ]


def read(text: str) -> Reading:
    """Reads an answer; what cannot be read says why."""
    number = number_of(text)
    spelling = spelled(text)
    tokens = tuple(tokens_of(spelling))
    if number is not None and "," not in text:
        return Reading(text, tokens, (number,))
    if len(text) > _LONGEST_READ:
        return Reading(text, tokens, (), f"longer than {_LONGEST_READ} characters")
    forms: dict[Form, None] = {}
    reasons = []
    joined = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), spelling)
    for variant in [tokens] if joined == spelling else [tokens_of(joined), tokens]:
        try:
            forms[parse(variant)] = None
        except Unreadable as error:
            reasons.append(str(error))
    return Reading(text, tokens, tuple(forms), "" if forms else reasons[0])


def left_unevaluated(gold: Reading, answer: Reading) -> str | None:
    """The first operation or joint in the answer's text that the gold's does not have (as often), or None."""
    owed = Counter(token.text.strip() for token in gold.tokens)
    given = Counter(token.text.strip() for token in answer.tokens)
    for text, count in given.items():
        if (text in _UNEVALUATED and text not in owed) or (text in _JOINTS and count > owed[text]):
            return text
    return None
