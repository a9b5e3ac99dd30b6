r"""Reads names: variables with subscripts and primes, applied functions f(x), and the binomials C_n^k and C(n,k)."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

from services.verifier.checks.math.reading.arithmetic import divide, negate
from services.verifier.checks.math.reading.cursor import TokenCursor
from services.verifier.checks.math.reading.forms import (
    Apply,
    Form,
    Number,
    Power,
    Product,
    Sum,
    Symbol,
    Text,
    UnreadableAnswer,
)
from services.verifier.checks.math.reading.number import MAX_DIGITS
from services.verifier.checks.math.reading.tokens import Token, TokenKind, is_denied
from services.verifier.checks.math.reading.units.phrase import is_unit

# Letters before parentheses: f(x + 1) applies a function, x(2) is a product, and h(2) may be either.
_FUNCTION_LETTERS = frozenset({"f", "g"})
_INVERSE = ("^", "{", "-", "1", "}")
_FACTOR_LETTERS = frozenset({"e", "i", "x", "y", "z"})
# What words may do to a number before "=".
_WORK_WORDS = frozenset("of times plus minus per percent by multiplied divided".split())  # noqa: SIM905
_ARROWS = frozenset(
    r"\to \rightarrow \Rightarrow \implies \Longrightarrow \therefore \because \iff \ne \not ?".split()  # noqa: SIM905
)
_MAX_WORDS = 8  # more are a sentence
_FEWEST_OBJECTS = 4  # C_1, C_2 and C_3 are constants of integration


class NameReader:
    """Reads names from a cursor; the values in them are read by the parser's own functions."""

    def __init__(
        self, cursor: TokenCursor, read_group: Callable[[], Form], read_items: Callable[[], tuple[Form, ...]]
    ) -> None:
        self._cursor = cursor
        self._read_group = read_group
        self._read_items = read_items

    def read(self, name: str) -> Form:
        """The name that begins with the letter or command `name`, which is read already."""
        if name in ("C", "A") and (chosen := self._counting(name)) is not None:
            return chosen
        if self._cursor.accept("_"):
            name = f"{name}_{subscript(self._read_group())}"
        while self._cursor.accept("'", "\\prime"):
            name += "'"
        return self._applied(name) or Symbol(name)

    def prescript(self) -> Form:
        r"""_{10}C_3 and ^{10}C_3, from the sign before the 10."""
        self._cursor.next()
        number = self._read_group()
        name = self._cursor.next().text
        if name not in ("C", "P") or not self._cursor.accept("_"):
            raise UnreadableAnswer("an index before a name")
        return _choose("A" if name == "P" else name, number, self._read_group())

    def number_set(self) -> Form:
        r"""\mathbb{R}, also with what restricts it: \mathbb{Z}^+, \mathbb{Q}_{>0}."""
        name = f"mathbb {subscript(self._read_group())}"
        while self._cursor.is_at("_", "^"):
            name += self._cursor.next().text
            if not self._cursor.accept("{"):
                name += self._cursor.next().text
                continue
            while not self._cursor.accept("}"):
                token = self._cursor.next()
                if token.kind is TokenKind.END:
                    raise UnreadableAnswer("a brace that is not closed")
                name += token.text
        return Symbol(name)

    def _counting(self, name: str) -> Form | None:
        """C_n^k, C^k_n and C(n,k) as binomials, A_n^k as a number of arrangements; None for other names."""
        start = self._cursor.at
        if name == "C" and self._is_call(commas=1):
            self._cursor.at += 1
            both = self._read_items()
            self._cursor.expect(")")
            return _choose(name, *both)
        scripts: dict[str, Form] = {}
        while len(scripts) < 2 and self._cursor.is_at("_", "^") and self._cursor.peek().text not in scripts:
            sign = self._cursor.next().text
            scripts[sign] = self._read_group()
        if len(scripts) == 2 and _counts_objects(name, scripts["_"], scripts["^"]):
            return _choose(name, scripts["_"], scripts["^"])
        self._cursor.rewind(start)
        return None

    def _is_call(self, *, commas: int) -> bool:
        """Whether single numbers or letters in parentheses come next: (2), or (10, 3) with one comma."""
        signs = ["(", *[","] * commas, ")"]
        if self._cursor.peek().after_space:
            return False
        for index, sign in enumerate(signs):
            if self._cursor.peek(2 * index).text != sign:
                return False
            value = self._cursor.peek(2 * index + 1)
            if sign != ")" and value.kind not in (TokenKind.NUMBER, TokenKind.WORD):
                return False
        return True

    def _applied(self, name: str) -> Form | None:
        r"""f(x), W(n), a(-1): a name applied to a value; None if none follows, or the parentheses are a factor."""
        letter = name.rstrip("'").partition("_")[0]
        following = [self._cursor.peek(at).text for at in range(len(_INVERSE) + 1)]
        if letter in _FUNCTION_LETTERS and following == [*_INVERSE, "("]:
            self._cursor.at += len(_INVERSE)
            name += "^-1"
        if letter in _FUNCTION_LETTERS and self._cursor.is_at("("):
            self._cursor.next()
            arguments = self._read_items()
            self._cursor.expect(")")
            return Apply(name, arguments)
        if name in _FACTOR_LETTERS:
            return None
        if self._is_call(commas=0):
            inside = self._cursor.peek(1)
            self._cursor.at += 3
            is_number = inside.kind is TokenKind.NUMBER
            return Apply(name, (Number(Fraction(inside.text[:MAX_DIGITS])) if is_number else Symbol(inside.text),))
        opening, sign, value, closing, after = (self._cursor.peek(ahead) for ahead in range(5))
        is_negative = (opening.text, sign.text, closing.text) == ("(", "-", ")") and value.kind is TokenKind.NUMBER
        if is_negative and not opening.after_space and after.text != "^":
            self._cursor.at += 4
            return Apply(name, (negate(Number(Fraction(value.text[:MAX_DIGITS]))),))
        return None


def _counts_objects(name: str, below: Form, above: Form) -> bool:
    if isinstance(below, Number) and isinstance(above, Number):
        return below.value.denominator == 1 and _FEWEST_OBJECTS <= below.value >= above.value >= 0
    return name == "C" and not isinstance(below, Number)


def _choose(name: str, number: Form, chosen: Form) -> Form:
    if name == "C":
        return Apply("binom", (number, chosen))
    if isinstance(number, Number) and isinstance(chosen, Number):
        left: Form = Number(number.value - chosen.value)
    else:
        left = Sum((number, negate(chosen)))
    return divide(Apply("factorial", (number,)), Apply("factorial", (left,)))


def subscript(form: Form) -> str:
    """A subscript as part of a name. Raises UnreadableAnswer."""
    match form:
        case Number(value):
            return str(value)
        case Symbol(name):
            return name
        case Product(factors):
            return "".join(map(subscript, factors))
        case Sum(terms):
            return "+".join(map(subscript, terms))
        case Text(words):
            return words
        case Power(base, exponent):
            return f"{subscript(base)}^{subscript(exponent)}"
        case _:
            raise UnreadableAnswer("a subscript that is no name")


def is_label(tokens: Sequence[Token]) -> bool:
    r"""Whether tokens before "=" that form no expression may name its value: \int_0^1 x dx, 110% of 500.

    They may not deny it, infer it from something else, or set another value beside it.
    """
    nesting, num_words, has_number = 0, 0, False
    for token, after in pairwise([*tokens, Token(TokenKind.END, "", False)]):
        nesting += (token.text in ("(", "{", "[")) - (token.text in (")", "}", "]"))
        is_number = token.kind is TokenKind.NUMBER
        if nesting == 0 and (token.text in _ARROWS or (is_number and after.kind is TokenKind.NUMBER)):
            return False
        if token.kind in (TokenKind.TEXT, TokenKind.WORD) and is_denied(token.text):
            return False
        if token.kind is TokenKind.TEXT or (token.kind is TokenKind.WORD and len(token.text) > 3):
            words = token.text.casefold().split()
            num_words += len(words)
            if num_words > _MAX_WORDS or (has_number and not all(w in _WORK_WORDS or is_unit(w) for w in words)):
                return False
        has_number = has_number or (is_number and nesting == 0)
    return True


def is_clause(token: Token) -> bool:
    """Whether a clause begins that says what a letter stands for: "for some integer t", "where k is an integer"."""
    words = token.text.casefold().replace(",", " ").split()
    return token.kind in (TokenKind.TEXT, TokenKind.WORD) and words[:1] in (["for"], ["where"], ["with"])


def domain_of(words: Sequence[str]) -> str | None:
    """Z or N of a clause about integers; None of others."""
    if {"integer", "integers"}.isdisjoint(words):
        return None
    signed = {"positive", "nonnegative", "non-negative", "negative"}.intersection(words)
    return "Z" if not signed else "N" if signed == {"positive"} else None
