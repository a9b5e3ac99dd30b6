r"""Parses a whole answer into a form: recursive descent over its tokens, with bounded depth.

listing   = relation {("," | ";" | "and" | "or") relation}
relation  = side {("=" | "<" | "\le" | "\in" | …) side}
side      = ratio [unit]            ratio = sets {":" sets}
sets      = sum {("\cup" | "\cap" | "\setminus") sum}
sum       = ["+" | "-" | "\pm"] product {("+" | "-" | "\pm" | "\mp") product}
product   = power {["\cdot" | "\times" | "*" | "/" | "\div"] power}
power     = atom {"^" group | "!" | "'" | "^\circ"}
"""

from collections.abc import Sequence

from services.verifier.checks.math.reading.arithmetic import negate, scale, share_modulus, to_congruence
from services.verifier.checks.math.reading.cursor import TokenCursor
from services.verifier.checks.math.reading.expression_parser import DEGREE, ExpressionParser
from services.verifier.checks.math.reading.forms import (
    Form,
    Number,
    Product,
    Quantity,
    Ratio,
    Relation,
    Relator,
    SetOperation,
    Symbol,
    Text,
    UnreadableAnswer,
    ValueList,
)
from services.verifier.checks.math.reading.names import domain_of, is_clause, is_label, subscript
from services.verifier.checks.math.reading.tokens import FUNCTION_WORDS, JOINTS, Token, TokenKind, is_joint, is_modulus
from services.verifier.checks.math.reading.units.phrase import scale_and_unit


def parse_form(tokens: Sequence[Token]) -> Form:
    """The form of an answer's tokens. Raises UnreadableAnswer."""
    words = _parse_words(tokens)
    if words is not None:
        return words
    cursor = TokenCursor(tokens)
    while cursor.accept(*_LEADS):
        pass
    form = _AnswerParser(cursor).listing()
    cursor.end()
    return form


_RELATORS = frozenset(map(str, Relator))
_SET_OPERATIONS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "setminus"}
_CURRENCIES = frozenset({"\\$", "$", "€", "£", "¥", "₹"})
_SEPARATORS = frozenset({",", ";", ")", "]", "}", "\\}", "\\rangle", "&", "\\\\", "\\end", "\\pmod", "\\over"})
_OPENINGS = frozenset({"(", "[", "{", "\\{", "\\langle"})
_CLOSINGS = frozenset({")", "]", "}", "\\}", "\\rangle"})
# What may lead to an answer without being part of it.
_LEADS = ("\\therefore", "\\implies", "\\Rightarrow", "\\approx", "=")
# Words before a parameter's domain: "for k in Z".
_DECLARING = frozenset({"for", "where", "with", "for all", "for any", "where all"})
_UNIT_SIGNS = _CURRENCIES | {"%", "\\%", "¢"}


class _AnswerParser:
    """Parses lists, relations and units; the expressions in them are ExpressionParser's."""

    def __init__(self, cursor: TokenCursor) -> None:
        self._cursor = cursor
        self._expressions = ExpressionParser(cursor, self)
        self._by_or = False

    def listing(self) -> Form:
        items = self.items()
        return items[0] if len(items) == 1 else ValueList(items, self._by_or)

    def items(self) -> tuple[Form, ...]:
        items = [self.relation(), *self._clause()]
        while self._accept_joint() or self._cursor.is_at_declaration():
            if self._cursor.peek().kind is TokenKind.END or self._cursor.is_at("\\end", "&"):
                break
            items.extend(self._clause() or (self.relation(), *self._clause()))
        return share_modulus(items)

    def _clause(self) -> tuple[Form, ...]:
        """What is said of a letter behind a value, as k in Z: "for some integer t", "where k is any integer"."""
        token = self._cursor.peek()
        if not is_clause(token) or self._cursor.peek(2).text == "\\in":
            return ()
        words, letters = [], []
        while self._cursor.peek().kind in (TokenKind.TEXT, TokenKind.WORD) and not is_joint(self._cursor.peek()):
            token = self._cursor.next()
            words += token.text.casefold().split()
            letters += [word for word in token.text.split()[-1:] if len(word) == 1]
        domain = domain_of(words)
        if domain is None or len(letters) != 1:
            raise UnreadableAnswer(f"{' '.join(words)!r} behind a value")
        return (Relation((Symbol(letters[0]), Symbol(f"mathbb {domain}")), (Relator.IN,)),)

    def _accept_joint(self) -> bool:
        start = self._cursor.at
        while self._cursor.accept(",", ";", "\\\\") or self._accept_joining_word():
            pass
        return self._cursor.at > start

    def _accept_joining_word(self) -> bool:
        token = self._cursor.peek()
        word = token.text.strip(" ,;").casefold()
        is_declaring = word in _DECLARING and self._cursor.peek(2).text == "\\in"
        if token.kind in (TokenKind.TEXT, TokenKind.WORD) and (word in JOINTS or is_declaring):
            self._cursor.at += 1
            self._by_or = self._by_or or word == "or"
            return True
        return False

    def relation(self) -> Form:
        sides, relators = [self._member()], []
        while self._is_at_relator():
            relators.append(self._relator())
            self._cursor.accept("&")
            sides.append(self._member())
            if relators[-1] is Relator.IN:
                sides[-1] = _to_number_set(sides[-1])
        relation = Relation(tuple(sides), tuple(relators)) if relators else sides[0]
        return relation if (modulus := self._modulus(relators)) is None else to_congruence(relation, modulus)

    def _is_at_relator(self) -> bool:
        """Whether a relator comes next, also one behind the & of an aligned equation, which is skipped."""
        is_aligned = self._cursor.is_at("&") and self._cursor.peek(1).text in _RELATORS
        self._cursor.at += is_aligned
        return self._cursor.is_at(*_RELATORS)

    def _relator(self) -> Relator:
        sign = self._cursor.next().text
        if sign in "<>" and self._cursor.accept("="):
            sign = {"<": "\\le", ">": "\\ge"}[sign]
        return Relator(sign)

    def _member(self) -> Form:
        """A side of a relation. One before "=" that cannot be read as a whole is a name: \\int_0^1 x dx = 1/2."""
        start, depth = self._cursor.at, self._cursor.depth
        try:
            form = self._side()
        except UnreadableAnswer:
            if (label := self._label(start, depth)) is None:
                raise
            return label
        is_whole = self._cursor.is_at(*_RELATORS, *_SEPARATORS) or is_joint(self._cursor.peek())
        is_whole = is_whole or self._cursor.peek().kind is TokenKind.END
        return form if is_whole else self._label(start, depth) or form

    def _label(self, start: int, depth: int) -> Text | None:
        """The tokens from `start` to the next "=" outside of brackets, skipped; None if they are no name."""
        label: list[Token] = []
        nesting = 0
        for token in self._cursor.tokens_from(start):
            if nesting == 0 and (token.text in _RELATORS | _SEPARATORS or is_joint(token)):
                break
            nesting += (token.text in _OPENINGS) - (token.text in _CLOSINGS)
            label.append(token)
        at = start + len(label)
        if nesting != 0 or not self._cursor.tokens_from(at) or self._cursor.tokens_from(at)[0].text != "=":
            return None
        if not is_label(label):
            return None
        self._expressions.rewind(at, depth)
        return Text("".join(token.text for token in label if token.text not in ("{", "}")))

    def _modulus(self, relators: Sequence[Relator]) -> Form | None:
        r"""The modulus of \pmod{7}, (mod 7) or mod 7; None if none comes next."""
        is_open = self._cursor.is_at("(")
        word = self._cursor.peek(int(is_open))
        if not is_modulus(word) or (word.text == "\\bmod" and Relator.EQUIVALENT not in relators):
            return None
        self._cursor.at += 1 + is_open
        if word.text == "\\pmod":
            return self._expressions.group()
        modulus = self._expressions.sum()
        if is_open:
            self._cursor.expect(")")
        return modulus

    def _side(self) -> Form:
        token = self._cursor.peek()
        is_long_word = token.kind is TokenKind.WORD and len(token.text) > 3 and token.text not in FUNCTION_WORDS
        if is_long_word or (token.kind is TokenKind.TEXT and self._is_word()):
            return self._text()
        is_negative = self._cursor.is_at("-") and self._cursor.peek(1).text in _CURRENCIES
        self._cursor.at += is_negative
        currency = self._cursor.next().text if self._cursor.is_at(*_CURRENCIES) else ""
        value = negate(self._ratio()) if is_negative else self._ratio()
        unit = f"{currency} {self._unit()}".strip()
        value, degrees = _without_degrees(value)
        if not unit:
            return Quantity(value, degrees) if degrees else value
        factor, name = scale_and_unit(f"{degrees} {unit}")
        if factor > 1:
            value = scale(value, factor)
        return Quantity(value, name) if name else value

    def _text(self) -> Form:
        words = []
        while self._cursor.peek().kind in (TokenKind.TEXT, TokenKind.WORD, TokenKind.NUMBER):
            words.append(self._cursor.next().text)
            if self._cursor.accept("_"):
                words.append(subscript(self._expressions.group()))
        return Text(" ".join(words))

    def _unit(self) -> str:
        """The words after a value, up to the next separator, if they begin as a unit; else ""."""
        words: list[str] = []
        while self._is_word() or self._cursor.is_at(*_UNIT_SIGNS) or (words and self._cursor.is_at("^", "/")):
            words.append(self._cursor.next().text)
            self._cursor.at += self._cursor.is_at("\\cdot") and self._cursor.peek(1).kind is TokenKind.TEXT  # N·m
            if words[-1] == "^":
                words[-1] = f"^{self._unit_exponent()}"
        return " ".join(words)

    def _is_word(self) -> bool:
        """Whether a word comes next, other than `and` and `or`."""
        token = self._cursor.peek()
        if is_clause(token) or (
            token.text.strip(" ,;").casefold() in _DECLARING and self._cursor.peek(2).text == "\\in"
        ):
            return False
        return token.kind in (TokenKind.TEXT, TokenKind.WORD) and not is_joint(token) and not is_modulus(token)

    def _unit_exponent(self) -> str:
        exponent = self._expressions.group()
        if isinstance(exponent, Number):
            return str(exponent.value)
        raise UnreadableAnswer("a unit's exponent is no number")

    def _ratio(self) -> Form:
        parts = [self._sets()]
        while self._cursor.accept(":"):
            parts.append(self._sets())
        return Ratio(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sets(self) -> Form:
        form = self._expressions.sum()
        while self._cursor.is_at(*_SET_OPERATIONS):
            name = _SET_OPERATIONS[self._cursor.next().text]
            right = self._expressions.sum()
            parts = form.parts if isinstance(form, SetOperation) and form.name == name != "setminus" else (form,)
            form = SetOperation(name, (*parts, right))
        return form


def _to_number_set(form: Form) -> Form:
    """R behind "in" is the set of the reals, however its letter is printed."""
    match form:
        case Symbol("R" | "Z" | "N" | "Q" as letter):
            return Symbol(f"mathbb {letter}")
        case _:
            return form


def _parse_words(tokens: Sequence[Token]) -> Text | None:
    """An answer of several plain words, such as "no solution"; single letters are variables."""
    words = tokens[:-1]
    if len(words) < 2 or any(token.kind is not TokenKind.WORD for token in words):
        return None
    texts = [token.text for token in words]
    if max(map(len, texts)) == 1 or not JOINTS.isdisjoint(texts) or not FUNCTION_WORDS.isdisjoint(texts):
        return None
    return Text(" ".join(texts))


def _without_degrees(value: Form) -> tuple[Form, str]:
    """A value in degrees as (number, "°"), and 20^\\circ C as (20, "°C"); others with no unit."""
    match value:
        case Product((*rest, last)) if last == DEGREE:
            return rest[0] if len(rest) == 1 else Product(tuple(rest)), "°"
        case Product((number, degree, Symbol("C" | "F" as scale))) if degree == DEGREE:
            return number, f"°{scale}"
        case _:
            return value, ""
