"""Parses expressions: sums, products, powers, functions, brackets and matrices."""

from fractions import Fraction
from typing import Protocol

from services.verifier.checks.math.reading.arithmetic import divide, multiply, negate, terms_of
from services.verifier.checks.math.reading.cursor import MAX_DEPTH, TokenCursor
from services.verifier.checks.math.reading.environments import is_system, read_environment
from services.verifier.checks.math.reading.forms import (
    Apply,
    Bracket,
    FiniteSet,
    Form,
    Number,
    PlusMinus,
    Power,
    Ratio,
    Relation,
    SetBuilder,
    Sum,
    Symbol,
    UnreadableAnswer,
    ValueList,
)
from services.verifier.checks.math.reading.names import NameReader, subscript
from services.verifier.checks.math.reading.number import MAX_DIGITS
from services.verifier.checks.math.reading.numerals import read_number
from services.verifier.checks.math.reading.tokens import (
    FUNCTION_WORDS,
    FUNCTIONS,
    GREEK,
    JOINTS,
    NAMED_WORDS,
    Token,
    TokenKind,
    is_modulus,
)
from services.verifier.checks.math.reading.units.phrase import is_unit

DEGREE = Symbol("degree")
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",), "\\langle": ("\\rangle",)}
_HALF = Number(Fraction(1, 2))
_MINUS_ONE = Number(Fraction(-1))
_E = Symbol("e")
_ENDS_OF_ARGUMENTS = frozenset({")", "]", "}", "!", "|", "\\rfloor", "\\rceil"})
_ATOM_COMMANDS = frozenset(
    r"\frac \sqrt \binom \lfloor \lceil \langle \overline \begin \|".split()  # noqa: SIM905
)
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
            elif self._is_factor() or self._is_number_factor(last):
                last = self._power()
                form = multiply(form, last)
            else:
                return form

    def _is_number_factor(self, last: Form) -> bool:
        """Whether the next number multiplies what is before it: (n+1)2^n, 2!3!, 2^3 5, but not x2, (2)3 or 1 2.

        What a function without parentheses takes in is not sure: \\sin x 2^n is none.
        """
        token, before = self._cursor.peek(), self._cursor.peek(-1)
        if token.kind is not TokenKind.NUMBER or token.text.startswith("."):
            return False
        is_behind_number = isinstance(last, Number) and before.kind is TokenKind.NUMBER
        is_open_function = isinstance(last, Apply) and before.text not in _ENDS_OF_ARGUMENTS
        if is_behind_number or is_open_function or before.text == "/":
            return False
        if self._cursor.peek(1).text in ("^", "!"):
            return True
        return isinstance(last, Power) and last.exponent != _HALF and (token.after_space or before.text == "}")

    def _operand(self) -> Form:
        return negate(self._power()) if self._cursor.accept("-") else self._power()

    def _is_factor(self) -> bool:
        """Whether the next token is a factor without a sign, as in 2x."""
        token = self._cursor.peek()
        if is_modulus(token) or (token.text == "(" and is_modulus(self._cursor.peek(1))):
            return False
        if self._cursor.is_at_declaration():
            return False
        if token.kind is TokenKind.WORD:
            return (
                not (is_unit(token.text) and len(token.text) > 1)
                and (len(token.text) <= 3 or token.text in FUNCTION_WORDS)
                and token.text not in JOINTS
            )
        if token.kind is TokenKind.COMMAND:
            name = token.text[1:]
            return name in GREEK or name in FUNCTIONS or token.text in _ATOM_COMMANDS
        return token.kind is TokenKind.SIGN and (
            token.text in "([{" or (token.text in ("|", "\\|") and not (self._in_bars or self._in_set))
        )

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
            return self._number_set()
        if name == "begin":
            return read_environment(self._cursor, self._lists.relation)
        raise UnreadableAnswer(f"{token.text} is not evaluated here")

    def _number_set(self) -> Form:
        r"""\mathbb{R}, also with what restricts it: \mathbb{Z}^+, \mathbb{Q}_{>0}."""
        name = f"mathbb {subscript(self.group())}"
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
        closing = self._cursor.expect(*_CLOSING[opening])
        self._in_bars, self._in_set = outside
        return _bracketed(opening, closing, items)

    def _braced_system(self) -> Form:
        r"""\{\begin{array}…: the closing brace is not printed."""
        self._cursor.next()
        system = read_environment(self._cursor, self._lists.relation, behind_brace=True)
        self._cursor.accept("\\}")
        return system


def _bracketed(opening: str, closing: str, items: tuple[Form, ...]) -> Form:
    match items:
        case (SetBuilder(),):
            return items[0]
        case (Relation(),) if opening == "\\{" and (described := _described_by(items[0])) is not None:
            return described
        case _ if opening == "\\{":
            return FiniteSet(items)
        case (Apply("atop", arguments),) if opening == "(":
            return Apply("binom", arguments)
        case (only,) if closing in _CLOSING[opening][:1]:
            return only
        case (_,):
            raise UnreadableAnswer(f"one value between {opening} and {closing}")
        case _ if opening == "{":
            return ValueList(items)
        case _:
            return Bracket(opening.lstrip("\\"), closing.lstrip("\\"), items)


def _described_by(relation: Form) -> SetBuilder | None:
    r"""\{x : x < 2\}: the colon was read as a ratio's."""
    assert isinstance(relation, Relation)
    for at, side in enumerate(relation.sides):
        if isinstance(side, Ratio) and len(side.parts) == 2 and at < len(relation.relators):
            before = (*relation.sides[:at], side.parts[0])
            element = Relation(before, relation.relators[:at]) if at else side.parts[0]
            return SetBuilder(element, Relation((side.parts[1], *relation.sides[at + 1 :]), relation.relators[at:]))
    return None
