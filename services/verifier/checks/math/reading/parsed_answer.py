"""An answer's text with every form it can be read as, and the answer that a gold text gives."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.verifier.checks.final_answer import extract_final_answer
from services.verifier.checks.math.reading.answer_parser import parse_form
from services.verifier.checks.math.reading.forms import Form, UnreadableAnswer
from services.verifier.checks.math.reading.notation import normalize_notation
from services.verifier.checks.math.reading.number import parse_number
from services.verifier.checks.math.reading.tokens import (
    FUNCTION_WORDS,
    Token,
    TokenKind,
    normalize_words,
    spell_out,
    tokenize,
)

# 1,234 is a number, or the two values 1 and 234.
# 1,00,000 is one hundred thousand.
_THOUSANDS = re.compile(r"(?<![0-9,.])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})(?![0-9,])")
# But (100,101) is no number, and 1,000 is not the two values 1 and 0.
_IN_BRACKETS = re.compile(r"[(\[]\s*+[0-9]{1,3}(?:,[0-9]{3})+\s*+[)\]]")
_NO_LIST = re.compile(r"[0-9],0[0-9]{2}(?![0-9])")
# $5 without a second $ that would make it mathematics.
_DOLLAR = re.compile(r"\A\$(?=\s{0,9}[0-9.][^$]*\Z)")
_STATED = re.compile(r"answer is \$([^$]+)\$")
# A longer text is compared as written, or by workers: parsing it would block the event loop.
MAX_PARSED_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """`forms` has every form that the text can be read as; it is empty if there is none."""

    text: str
    tokens: tuple[Token, ...] = field(compare=False)
    forms: tuple[Form, ...] = field(compare=False)
    unreadable_reason: str = field(compare=False, default="")

    @property
    def words(self) -> str:
        """The text as words, without its markup."""
        return normalize_words("".join(token.text for token in self.tokens))

    @property
    def has_words(self) -> bool:
        """Whether there is more in it than notation: math-verify would leave it out."""
        return any(token.kind is TokenKind.TEXT or _is_long_word(token) for token in self.tokens)

    def is_written_as(self, other: "ParsedAnswer") -> bool:
        """Whether both have the same tokens, but for braces around a single one and the names of indices."""
        if self.text == other.text or min(len(self.text), len(other.text)) > MAX_PARSED_CHARACTERS:
            return self.text == other.text or self.tokens == other.tokens
        own, others = _letters(self.tokens), _letters(other.tokens)
        if own != others and "_" not in own and "_" not in others:
            return False  # most are, and to look for braces and indices takes longer
        return spell_out(self.tokens) == spell_out(other.tokens)


def _letters(tokens: Sequence[Token]) -> str:
    """All of the tokens but braces, which is quickly seen to differ."""
    return "".join([token.text for token in tokens]).replace("{", "").replace("}", "")


def _is_long_word(token: Token) -> bool:
    return token.kind is TokenKind.WORD and len(token.text) > 1 and token.text not in FUNCTION_WORDS


def parse_answer(text: str) -> ParsedAnswer:
    """Never raises: an answer without forms has an `unreadable_reason`."""
    text = _DOLLAR.sub(r"\\$", text)
    spelling = normalize_notation(text)
    tokens = tuple(tokenize(spelling))
    number = parse_number(text) or (parse_number(spelling) if spelling != text else None)
    if number is not None and "," not in spelling and "$" not in spelling:
        return ParsedAnswer(text, tokens, (number,))
    if max(len(text), len(spelling)) > MAX_PARSED_CHARACTERS:
        return ParsedAnswer(text, tokens, (), f"longer than {MAX_PARSED_CHARACTERS} characters")
    forms: dict[Form, None] = {}
    reasons = []
    for variant in _variants(spelling, tokens):
        try:
            forms[parse_form(variant)] = None
        except UnreadableAnswer as error:
            reasons.append(str(error))
    return ParsedAnswer(text, tokens, tuple(forms), "" if forms else reasons[0])


def _variants(spelling: str, tokens: tuple[Token, ...]) -> list[Sequence[Token]]:
    """The tokens with 1,234 as a number, and as two values."""
    joined = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), spelling)
    if joined == spelling or _IN_BRACKETS.search(spelling):
        return [tokens]
    return [tokenize(joined)] if _NO_LIST.search(spelling) else [tokenize(joined), tokens]


def extract_gold(gold: str, max_characters: int) -> str | None:
    """What a gold's boxes, its `####` line or its "answer is $…$" say, else all of it; None if empty or too long."""
    if "\\boxed" in gold or "\\fbox" in gold or "####" in gold:
        answer = extract_final_answer(gold, max_characters)
        if answer is not None:
            return ", ".join(answer.stated)
        gold = gold.rpartition("boxed{")[2]  # a box that is not closed
    stated = _STATED.findall(gold) if "answer is $" in gold else []
    text = (stated[-1] if stated else gold).strip()
    return text if text and len(text) <= max_characters else None
