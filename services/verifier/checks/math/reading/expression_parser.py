"""Parses expressions: sums, products, powers, functions, brackets and matrices."""

from fractions import Fraction
from typing import Protocol

from services.verifier.checks.math.reading.arithmetic import divide, multiply, negate, terms_of
from services.verifier.checks.math.reading.brackets import CLOSING, bracketed
from services.verifier.checks.math.reading.cursor import MAX_DEPTH, TokenCursor
from services.verifier.checks.math.reading.environments import is_system, read_environment
from services.verifier.checks.math.reading.factors import is_factor, is_number_factor
from services.verifier.checks.math.reading.forms import (
    Apply,
    FiniteSet,
    Form,
    Number,
    PlusMinus,
    Power,
    SetBuilder,
    Sum,
    Symbol,
    UnreadableAnswer,
)
from services.verifier.checks.math.reading.names import NameReader
from services.verifier.checks.math.reading.number import MAX_DIGITS
from services.verifier.checks.math.reading.numerals import read_number
from services.verifier.checks.math.reading.tokens import (
    FUNCTIONS,
    GREEK,
    NAMED_WORDS,
    Token,
    TokenKind,
)

DEGREE = Symbol("degree")
_HALF = Number(Fraction(1, 2))
_MINUS_ONE = Number(Fraction(-1))
_E = Symbol("e")
_ACCENTS = frozenset({"overline", "bar", "widehat", "tilde"})


class ListParser(Protocol):
    """Parses what stands in brackets: values with their relations and units."""

    def items(self) -> tuple[Form, ...]: ...
    def relation(self) -> Form: ...
    def listing(self) -> Form: ...


class ExpressionParser:
    """Parses from a cursor; `lists` parses what stands in brackets."""

    def __init__(self, cursor: TokenCursor, lists: ListParser) -> None:
        self._cursor = cursor
        self._lists = lists
        self._names = NameReader(cursor, self.group, lists.items)
        self._in_bars = False
        self._in_set = False  # where a bar comes before the condition

    def rewind(self, at: int, depth: int) -> None:
        """Goes back to where nothing was open but what is still open there."""
        self._cursor.rewind(at, depth)
        self._in_bars = self._in_set = False

    def sum(self) -> Form:
        r"""A sum, up to the first token that cannot continue it; also two with \over or \choose between them."""
        form = self._terms()
        if self._cursor.accept("\\over"):
            return divide(form, self._terms())
        if self._cursor.is_at("\\choose", "\\atop"):
            name = "binom" if self._cursor.next().text == "\\choose" else "atop"
            return Apply(name, (form, self._terms()))
        return form

    def _terms(self) -> Form:
        form = self._first_term()
        while self._cursor.is_at("+", "-", "\\pm", "\\mp"):
            sign = self._cursor.next().text
            right = self._signed_product()
            if isinstance(form, PlusMinus):
                raise UnreadableAnswer("more behind a ± than one value")
            if sign in ("\\pm", "\\mp"):
                form = PlusMinus(form, right, sign == "\\mp")
            else:
                form = Sum((*terms_of(form), right if sign == "+" else negate(right)))
        return form

    def _first_term(self) -> Form:
        if self._cursor.accept("+"):
            return self._product()
        if self._cursor.accept("-"):
            return negate(self._product())
        if self._cursor.is_at("\\pm", "\\mp"):
            sign = self._cursor.next().text
            return PlusMinus(Number(Fraction(0)), self._product(), sign == "\\mp")
        return self._product()

    def _signed_product(self) -> Form:
        """A term behind a sign: `14 + -1`, but not `14 +-1`, which may be meant as ±."""
        if self._cursor.is_at("-") and self._cursor.peek().after_space:
            self._cursor.next()
            return negate(self._product())
        return self._product()

    def _product(self) -> Form:
        last = form = self._power()
        while True:
            if self._cursor.accept("\\cdot", "\\times", "*"):
                last = self._operand()
                form = multiply(form, last)
            elif self._cursor.accept("/"):
                last = self._operand()
                form = divide(form, last)
            elif self._cursor.accept("\\div"):  # an operation to evaluate, while a/b is a fraction
                last = self._operand()
                form = divide(form, Sum((last,)))
            elif self._is_factor() or is_number_factor(self._cursor, last):
                last = self._power()
                form = multiply(form, last)
            else:
                return form

    def _operand(self) -> Form:
        return negate(self._power()) if self._cursor.accept("-") else self._power()

    def _is_factor(self) -> bool:
        return is_factor(self._cursor, bars_begin=not (self._in_bars or self._in_set))

    def _power(self) -> Form:
        form = self._atom()
        for _ in range(MAX_DEPTH):
            if self._cursor.accept("^"):
                form = self._raise_to_exponent(form)
                if self._cursor.is_at("^") and "\\circ" not in (self._cursor.peek(1).text, self._cursor.peek(2).text):
                    raise UnreadableAnswer("a power of a power without parentheses")
            elif self._cursor.accept("!"):
                is_double = self._cursor.is_at("!") and not self._cursor.peek().after_space
                self._cursor.at += is_double
                if is_double and self._cursor.is_at("!"):
                    raise UnreadableAnswer("more than two factorials in a row")
                form = Apply("double factorial" if is_double else "factorial", (form,))
            else:
                return form
        raise UnreadableAnswer(f"more than {MAX_DEPTH} powers of one another")

    def _raise_to_exponent(self, form: Form) -> Form:
        if self._cursor.accept("\\circ"):
            return multiply(form, DEGREE)
        exponent = self.group()
        return multiply(form, DEGREE) if exponent == Symbol("circ") else Power(form, exponent)

    def group(self) -> Form:
        """The argument of a command or an exponent: braces, or one token with its sign."""
        if self._cursor.is_at("{"):
            return self._atom()
        if self._cursor.accept("-"):
            return negate(self._cursor.read_nested(self.group))
        token = self._cursor.peek()
        if token.kind is TokenKind.NUMBER and len(token.text) <= MAX_DIGITS:
            return Number(Fraction(self._cursor.next().text))
        if token.kind is TokenKind.COMMAND or self._cursor.is_at("("):
            return self._atom()
        if token.kind is TokenKind.WORD:
            return Symbol(self._cursor.take_first())
        raise UnreadableAnswer(f"{token.text!r} where an argument should be")

    def _argument(self) -> Form:
        r"""An argument of \frac or \sqrt: braces, or one digit, letter or command."""
        token = self._cursor.peek()
        if token.kind is TokenKind.NUMBER and len(token.text) > 1:
            digit = self._cursor.take_first()
            if not digit.isdigit():
                raise UnreadableAnswer(f"{token.text!r} cannot stand here")
            return Number(Fraction(int(digit)))
        return self.group()

    def _atom(self) -> Form:
        return self._cursor.read_nested(self._read_atom)

    def _read_atom(self) -> Form:
        token = self._cursor.next()
        match token.kind:
            case TokenKind.NUMBER:
                return read_number(self._cursor, token, self.group, self._fraction)
            case TokenKind.WORD:
                return self._word(token)
            case TokenKind.COMMAND:
                return self._command(token)
            case TokenKind.SIGN if token.text in ("(", "[", "\\{", "{"):
                return self._brackets(token.text)
            case TokenKind.SIGN if token.text in ("|", "\\|"):
                return self._bars(token.text)
            case TokenKind.SIGN if token.text in ("_", "^"):
                self._cursor.rewind(self._cursor.at - 1)
                return self._names.prescript()
            case _:
                raise UnreadableAnswer(f"{token.text!r} where a value should be")

    def _word(self, token: Token) -> Form:
        if token.text in NAMED_WORDS:
            return self._command(Token(TokenKind.COMMAND, NAMED_WORDS[token.text], token.after_space))
        if token.text in FUNCTIONS:
            return self._function(token.text)
        if len(token.text) > 3:
            raise UnreadableAnswer(f"{token.text!r} within an expression")
        form: Form = self._names.read(token.text[-1])
        for letter in reversed(token.text[:-1]):
            form = multiply(Symbol(letter), form)
        return form

    def _command(self, token: Token) -> Form:
        name = token.text[1:]
        if name == "frac":
            return self._fraction()
        if name == "sqrt":
            return self._root()
        if name == "binom":
            return Apply("binom", (self._argument(), self._argument()))
        if name in FUNCTIONS:
            return self._function(name)
        if name == "varnothing":
            return FiniteSet(())
        if name in GREEK:
            return self._names.read(name)
        if name == "circ":
            return Symbol(name)
        if name in ("lfloor", "lceil"):
            inside = self.sum()
            self._cursor.expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return Apply(name[1:], (inside,))
        if name in _ACCENTS:
            return Apply(name, (self.group(),))
        if name == "langle":
            return self._brackets("\\langle")
        if name == "mathbb":
            return self._names.number_set()
        if name == "begin":
            return read_environment(self._cursor, self._lists.relation)
        raise UnreadableAnswer(f"{token.text} is not evaluated here")

    def _fraction(self) -> Form:
        numerator = self._argument()
        return divide(numerator, self._argument())

    def _root(self) -> Form:
        if not self._cursor.accept("["):
            return Power(self._argument(), _HALF)
        degree = self.sum()
        self._cursor.expect("]")
        return Power(self._argument(), divide(Number(Fraction(1)), degree))

    def _function(self, name: str) -> Form:
        """A named function with its power, its base and its argument: \\sin^2 2x, \\log_2 (x+1)."""
        base = self.group() if self._cursor.accept("_") else None
        exponent = self.group() if self._cursor.accept("^") else None
        if base is None and exponent is not None and self._cursor.accept("_"):
            base = self.group()
        argument = self._cursor.read_nested(self._read_atom if self._cursor.is_at("(", "{") else self._plain_product)
        if name == "exp" and base is None and exponent is None:
            return Power(_E, argument)
        if exponent == _MINUS_ONE and name in ("sin", "cos", "tan"):
            return Apply("arc" + name, (argument,))
        if base is not None and name != "log":
            raise UnreadableAnswer(f"a base of {name}")
        form = Apply(name, (argument,) if base is None else (argument, base))
        return form if exponent is None else Power(form, exponent)

    def _plain_product(self) -> Form:
        """A function's argument without parentheses; it ends before the next sign or function."""
        form = self._power()
        while (
            self._is_factor() and not self._cursor.is_at("(") and self._cursor.peek().text.lstrip("\\") not in FUNCTIONS
        ):
            form = multiply(form, self._power())
        return form

    def _bars(self, bar: str) -> Form:
        if self._in_bars:
            raise UnreadableAnswer("bars within bars")
        self._in_bars = True
        inside = self.sum()
        self._in_bars = False
        self._cursor.expect(bar)
        return Apply("abs" if bar == "|" else "norm", (inside,))

    def _brackets(self, opening: str) -> Form:
        if opening == "\\{" and self._cursor.is_at("\\begin") and is_system(self._cursor.peek(2).text):
            return self._braced_system()
        if opening == "{" and self._cursor.accept("}"):
            return self._names.prescript()
        outside = self._in_bars, self._in_set
        self._in_bars, self._in_set = False, opening == "\\{"
        items = () if opening == "\\{" and self._cursor.is_at("\\}") else self._lists.items()
        if opening == "\\{" and len(items) == 1 and self._cursor.accept("|", ":"):
            items = (SetBuilder(items[0], self._lists.listing()),)
        closing = self._cursor.expect(*CLOSING[opening])
        self._in_bars, self._in_set = outside
        return bracketed(opening, closing, items)

    def _braced_system(self) -> Form:
        r"""\{\begin{array}…: the closing brace is not printed."""
        self._cursor.next()
        system = read_environment(self._cursor, self._lists.relation, behind_brace=True)
        self._cursor.accept("\\}")
        return system
