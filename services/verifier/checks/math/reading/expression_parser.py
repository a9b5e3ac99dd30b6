"""Parses expressions: sums, products, powers, functions, brackets and matrices."""

from collections.abc import Callable
from fractions import Fraction

from services.verifier.checks.math.reading.arithmetic import divide, in_base, multiply, negate, scientific, terms_of
from services.verifier.checks.math.reading.cursor import MAX_DEPTH, TokenCursor
from services.verifier.checks.math.reading.forms import (
    Apply,
    Bracket,
    FiniteSet,
    Form,
    Matrix,
    Number,
    PlusMinus,
    Power,
    Product,
    Sum,
    Symbol,
    Text,
    UnreadableAnswer,
    ValueList,
)
from services.verifier.checks.math.reading.number import MAX_DIGITS
from services.verifier.checks.math.reading.tokens import (
    FUNCTION_WORDS,
    FUNCTIONS,
    GREEK,
    JOINTS,
    NAMED_WORDS,
    Token,
    TokenKind,
)
from services.verifier.checks.math.reading.units import is_unit

DEGREE = Symbol("degree")
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",), "\\langle": ("\\rangle",)}
_MATRICES = frozenset({"pmatrix", "bmatrix", "matrix", "Bmatrix", "vmatrix", "array", "smallmatrix"})
_HALF = Number(Fraction(1, 2))
_MINUS_ONE = Number(Fraction(-1))
_TEN = Number(Fraction(10))
_ATOM_COMMANDS = frozenset({"\\frac", "\\sqrt", "\\binom", "\\lfloor", "\\lceil", "\\langle", "\\overline", "\\begin"})


class ExpressionParser:
    """Parses from a cursor; `read_items` parses a list of values, which brackets may contain."""

    def __init__(self, cursor: TokenCursor, read_items: Callable[[], tuple[Form, ...]]) -> None:
        self._cursor = cursor
        self._read_items = read_items
        self._in_bars = False

    def sum(self) -> Form:
        """A sum, up to the first token that cannot continue it."""
        form = self._first_term()
        while self._cursor.is_at("+", "-", "\\pm", "\\mp"):
            sign = self._cursor.next().text
            right = self._product()
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
        if self._cursor.accept("\\pm", "\\mp"):
            return PlusMinus(Number(Fraction(0)), self._product(), False)
        return self._product()

    def _product(self) -> Form:
        form = self._power()
        while True:
            if self._cursor.accept("\\cdot", "\\times", "*"):
                form = multiply(form, self._operand())
            elif self._cursor.accept("/"):
                form = divide(form, self._operand())
            elif self._cursor.accept("\\div"):  # an operation to evaluate, while a/b is a fraction
                form = divide(form, Sum((self._operand(),)))
            elif self._is_factor():
                form = multiply(form, self._power())
            else:
                return form

    def _operand(self) -> Form:
        return negate(self._power()) if self._cursor.accept("-") else self._power()

    def _is_factor(self) -> bool:
        """Whether the next token is a factor without a sign, as in 2x. A number is not: `2 3` is no product."""
        token = self._cursor.peek()
        if token.kind is TokenKind.WORD:
            return (
                not (is_unit(token.text) and len(token.text) > 1)
                and (len(token.text) <= 3 or token.text in FUNCTION_WORDS)
                and token.text not in JOINTS
            )
        if token.kind is TokenKind.COMMAND:
            name = token.text[1:]
            return name in GREEK or name in FUNCTIONS or token.text in _ATOM_COMMANDS
        return token.kind is TokenKind.SIGN and (token.text in "([{" or (token.text == "|" and not self._in_bars))

    def _power(self) -> Form:
        form = self._atom()
        for _ in range(MAX_DEPTH):
            if self._cursor.accept("^"):
                form = self._raise_to_exponent(form)
            elif self._cursor.accept("!"):
                form = Apply("factorial", (form,))
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
                return self._number(token)
            case TokenKind.WORD:
                return self._word(token)
            case TokenKind.COMMAND:
                return self._command(token)
            case TokenKind.SIGN if token.text in ("(", "[", "\\{", "{"):
                return self._brackets(token.text)
            case TokenKind.SIGN if token.text == "|":
                return self._bars()
            case _:
                raise UnreadableAnswer(f"{token.text!r} where a value should be")

    def _number(self, token: Token) -> Form:
        if len(token.text) > MAX_DIGITS:
            raise UnreadableAnswer("a number too long to compare")
        value = Fraction(token.text)
        if self._cursor.accept("_"):
            return in_base(token.text, self.group())
        following = self._cursor.peek()
        if following.text == "\\frac" and token.text.isdigit():
            self._cursor.next()
            part = self._fraction()
            if not isinstance(part, Number) or part.value < 0:
                return multiply(Number(value), part)
            return Number(value + part.value)
        if following.kind is TokenKind.NUMBER:
            raise UnreadableAnswer("two numbers side by side")
        return self._scientific(Number(value), token.text)

    def _scientific(self, number: Number, digits: str) -> Form:
        r"""The number, times a power of ten that follows it: 1.6 \times 10^{-19}, 5e-7."""
        e = self._cursor.peek()
        if e.kind is TokenKind.WORD and e.text in ("e", "E") and not e.after_space:
            sign = 1 if self._cursor.peek(1).text in ("-", "+") else 0
            exponent = self._cursor.peek(1 + sign)
            if exponent.kind is TokenKind.NUMBER and exponent.text.isdigit() and not exponent.after_space:
                self._cursor.at += 2 + sign
                return scientific(digits, (self._cursor.peek(-2).text if sign else "") + exponent.text)
        if (
            self._cursor.is_at("\\times", "\\cdot", "*")
            and self._cursor.peek(1).text == "10"
            and self._cursor.peek(2).text == "^"
        ):
            self._cursor.at += 3
            exponent_form = self.group()
            if isinstance(exponent_form, Number) and exponent_form.value.denominator == 1:
                return scientific(digits, str(exponent_form.value))
            return multiply(number, Power(_TEN, exponent_form))
        return number

    def _word(self, token: Token) -> Form:
        if token.text in NAMED_WORDS:
            return self._command(Token(TokenKind.COMMAND, NAMED_WORDS[token.text], token.after_space))
        if token.text in FUNCTIONS:
            return self._function(token.text)
        if len(token.text) > 3:
            raise UnreadableAnswer(f"{token.text!r} within an expression")
        form: Form = self._symbol(token.text[-1])
        for letter in reversed(token.text[:-1]):
            form = multiply(Symbol(letter), form)
        return form

    def _symbol(self, name: str) -> Form:
        """A variable with its subscript and primes, or its application to one value: f(x), W(n)."""
        if self._cursor.accept("_"):
            name = f"{name}_{_subscript(self.group())}"
        while self._cursor.accept("'", "\\prime"):
            name += "'"
        opening, inside, closing = self._cursor.peek(), self._cursor.peek(1), self._cursor.peek(2)
        is_call = opening.text == "(" and not opening.after_space and closing.text == ")"
        if is_call and inside.kind in (TokenKind.NUMBER, TokenKind.WORD) and name not in ("e", "i", "x", "y", "z"):
            self._cursor.at += 3
            argument = (
                Number(Fraction(inside.text[:MAX_DIGITS])) if inside.kind is TokenKind.NUMBER else Symbol(inside.text)
            )
            return Apply(name, (argument,))
        return Symbol(name)

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
        if name in GREEK:
            return self._symbol(name)
        if name == "circ":
            return Symbol(name)
        if name in ("lfloor", "lceil"):
            inside = self.sum()
            self._cursor.expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return Apply(name[1:], (inside,))
        if name in ("overline", "bar", "widehat", "tilde"):
            return Apply(name, (self.group(),))
        if name == "langle":
            return self._brackets("\\langle")
        if name == "mathbb":
            return Symbol(f"mathbb {_subscript(self.group())}")
        if name == "begin":
            return self._matrix()
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
        if exponent == _MINUS_ONE and name in ("sin", "cos", "tan"):
            return Apply("arc" + name, (argument,))
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

    def _bars(self) -> Form:
        if self._in_bars:
            raise UnreadableAnswer("bars within bars")
        self._in_bars = True
        inside = self.sum()
        self._in_bars = False
        self._cursor.expect("|")
        return Apply("abs", (inside,))

    def _brackets(self, opening: str) -> Form:
        in_bars, self._in_bars = self._in_bars, False
        closings = _CLOSING[opening]
        items = () if opening == "\\{" and self._cursor.is_at("\\}") else self._read_items()
        closing = self._cursor.expect(*closings)
        self._in_bars = in_bars
        if opening == "\\{":
            return FiniteSet(items)
        if len(items) == 1:
            return items[0]
        if opening == "{":
            return ValueList(items)
        return Bracket(opening.lstrip("\\"), closing.lstrip("\\"), items)

    def _matrix(self) -> Form:
        name = self._environment()
        if name == "array" and self._cursor.accept("{"):
            while self._cursor.peek().kind is TokenKind.WORD or self._cursor.is_at("|"):
                self._cursor.next()
            self._cursor.expect("}")
        rows: list[tuple[Form, ...]] = []
        while not self._cursor.accept("\\end"):
            cells = [self.sum()]
            while self._cursor.accept("&"):
                cells.append(self.sum())
            rows.append(tuple(cells))
            if not self._cursor.accept("\\\\") and not self._cursor.is_at("\\end"):
                raise UnreadableAnswer(f"{self._cursor.peek().text!r} in a matrix")
        if self._environment() != name or len({len(row) for row in rows}) != 1:
            raise UnreadableAnswer("a matrix with rows of different lengths, or closed as another")
        return Apply("det", (Matrix(tuple(rows)),)) if name == "vmatrix" else Matrix(tuple(rows))

    def _environment(self) -> str:
        self._cursor.expect("{")
        name = self._cursor.next().text
        self._cursor.expect("}")
        if name not in _MATRICES:
            raise UnreadableAnswer(f"the environment {name!r} is no matrix")
        return name


def _subscript(form: Form) -> str:
    match form:
        case Number(value):
            return str(value)
        case Symbol(name):
            return name
        case Product(factors):
            return "".join(map(_subscript, factors))
        case Sum(terms):
            return "+".join(map(_subscript, terms))
        case Text(words):
            return words
        case _:
            raise UnreadableAnswer("a subscript that is no name")
