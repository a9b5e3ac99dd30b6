r"""Reads an answer into a form: recursive descent over its tokens, linear but for its bounded depth.

listing   = relation {("," | ";" | "and" | "or") relation}
relation  = side {("=" | "<" | "\le" | "\in" | …) side}
side      = ratio [unit]            ratio = sets {":" sets}
sets      = sum {("\cup" | "\cap" | "\setminus") sum}
sum       = ["+" | "-" | "\pm"] product {("+" | "-" | "\pm" | "\mp") product}
product   = power {["\cdot" | "\times" | "*" | "/" | "\div"] power}
power     = atom {"^" group | "!" | "'" | "^\circ"}
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

from services.verifier.checks.math.arithmetic import based, negative, over, power_of_ten, scaled_by, terms, times
from services.verifier.checks.math.forms import (
    Apply,
    Bracket,
    Form,
    Listing,
    Matrix,
    Members,
    Number,
    PlusMinus,
    Power,
    Product,
    Quantity,
    Ratio,
    Relation,
    Relator,
    SetOperation,
    Sum,
    Symbol,
    Text,
)
from services.verifier.checks.math.notation import Kind, Token
from services.verifier.checks.math.number import LONGEST_DIGITS
from services.verifier.checks.math.units import is_unit, scale_and_unit
from services.verifier.checks.math.unreadable import TooDeep, Unreadable

_DEEPEST = 60


def parse(tokens: Sequence[Token]) -> Form:
    """The form of an answer's tokens. Raises Unreadable."""
    words = _words_alone(tokens)
    if words is not None:
        return words
    parser = _Parser(list(tokens))
    form = parser.listing()
    parser.end()
    return form


_RELATORS = {
    "=": Relator.EQUAL, "<": Relator.LESS, ">": Relator.GREATER, "\\le": Relator.LESS_EQUAL,
    "\\ge": Relator.GREATER_EQUAL, "\\ne": Relator.UNEQUAL, "\\in": Relator.IN, "\\approx": Relator.ABOUT,
}  # fmt: skip
_JOINTS = frozenset({"and", "or"})
_SET_OPERATIONS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "setminus"}
_CURRENCIES = frozenset({"\\$", "$", "€", "£", "¥", "₹"})
_PERCENT = frozenset({"%", "\\%"})
_GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega pi infty varnothing ell
    hbar angle triangle""".split()  # noqa: SIM905
)
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()  # noqa: SIM905
)
_NAMED_WORDS = {"sqrt": "\\sqrt", "pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "oo": "\\infty"}
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",), "\\langle": ("\\rangle",)}
_MATRICES = frozenset({"pmatrix", "bmatrix", "matrix", "Bmatrix", "vmatrix", "array", "smallmatrix"})
_HALF = Number(Fraction(1, 2))
_MINUS_ONE = Number(Fraction(-1))
_TEN = Number(Fraction(10))
_DEGREE = Symbol("degree")


class _Parser:
    """The position in the tokens, and how deep the reading is."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._in_bars = False
        self._by_or = False

    # --- tokens

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        token = self._peek()
        return token.kind in (Kind.SIGN, Kind.COMMAND) and token.text in texts

    def _accept(self, *texts: str) -> bool:
        if self._is(*texts):
            self._at += 1
            return True
        return False

    def _expect(self, *texts: str) -> str:
        token = self._next()
        if token.text not in texts or token.kind not in (Kind.SIGN, Kind.COMMAND):
            raise Unreadable(f"{token.text!r} where one of {texts} belongs")
        return token.text

    def end(self) -> None:
        """Nothing is left but a full stop."""
        self._accept(".")
        if self._peek().kind is not Kind.END:
            raise Unreadable(f"{self._peek().text!r} is left over")

    def _nested(self, read: Callable[[], Form]) -> Form:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise TooDeep(f"nested deeper than {_DEEPEST}")
        form = read()
        self._depth -= 1
        return form

    # --- listings and relations

    def listing(self) -> Form:
        items = self._items()
        return items[0] if len(items) == 1 else Listing(items, self._by_or)

    def _items(self) -> tuple[Form, ...]:
        items = [self._relation()]
        while self._joint():
            if self._peek().kind is Kind.END:
                break
            items.append(self._relation())
        return tuple(items)

    def _joint(self) -> bool:
        start = self._at
        while self._accept(",", ";") or self._is_joining_word():
            pass
        return self._at > start

    def _is_joining_word(self) -> bool:
        token = self._peek()
        word = token.text.strip(" ,;").casefold()
        if token.kind in (Kind.TEXT, Kind.WORD) and word in _JOINTS:
            self._at += 1
            self._by_or = self._by_or or word == "or"
            return True
        return False

    def _relation(self) -> Form:
        sides, relators = [self._side()], []
        while self._peek().text in _RELATORS and self._peek().kind in (Kind.SIGN, Kind.COMMAND):
            relators.append(self._relator())
            sides.append(self._side())
        return Relation(tuple(sides), tuple(relators)) if relators else sides[0]

    def _relator(self) -> Relator:
        sign = self._next().text
        if sign in "<>" and self._accept("="):
            sign = {"<": "\\le", ">": "\\ge"}[sign]
        return _RELATORS[sign]

    def _side(self) -> Form:
        token = self._peek()
        if token.kind is Kind.TEXT and not self._is_joining_word():
            return self._text()
        if token.kind is Kind.WORD and len(token.text) > 3 and token.text not in _FUNCTION_WORDS:
            return self._text()
        currency = self._next().text if self._is(*_CURRENCIES) else ""
        value = self._ratio()
        unit = self._unit() or currency
        if not unit:
            return _angle(value)
        scale, name = scale_and_unit(unit)
        if scale > 1:
            value = scaled_by(value, scale)
        return Quantity(value, name) if name else value

    def _text(self) -> Form:
        words = []
        while self._peek().kind in (Kind.TEXT, Kind.WORD, Kind.NUMBER):
            words.append(self._next().text)
        return Text(" ".join(words))

    def _unit(self) -> str:
        """What stands behind a value up to the next separator, when it begins as a unit."""
        token = self._peek()
        begins = token.kind is Kind.TEXT or self._is(*_PERCENT, *_CURRENCIES) or token.kind is Kind.WORD
        if not begins or token.text.strip(" ,;").casefold() in _JOINTS:
            return ""
        words: list[str] = []
        while (token := self._peek()).kind in (Kind.TEXT, Kind.WORD) or self._is(*_PERCENT, *_CURRENCIES, "^", "/"):
            if token.text.strip(" ,;").casefold() in _JOINTS:
                break
            words.append(self._next().text)
            if words[-1] == "^":
                words[-1] = self._unit_exponent()
        return " ".join(words)

    def _unit_exponent(self) -> str:
        exponent = self._group()
        if isinstance(exponent, Number):
            return str(exponent.value)
        raise Unreadable("a unit's exponent is no number")

    def _ratio(self) -> Form:
        parts = [self._sets()]
        while self._accept(":"):
            parts.append(self._sets())
        return Ratio(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sets(self) -> Form:
        form = self._sum()
        while self._is(*_SET_OPERATIONS):
            name = _SET_OPERATIONS[self._next().text]
            right = self._sum()
            parts = form.parts if isinstance(form, SetOperation) and form.name == name != "setminus" else (form,)
            form = SetOperation(name, (*parts, right))
        return form

    # --- arithmetic

    def _sum(self) -> Form:
        form = self._signed()
        while self._is("+", "-", "\\pm", "\\mp"):
            sign = self._next().text
            right = self._product()
            if isinstance(form, PlusMinus):
                raise Unreadable("more behind a ± than one value")
            if sign in ("\\pm", "\\mp"):
                form = PlusMinus(form, right, sign == "\\mp")
            else:
                form = Sum((*terms(form), right if sign == "+" else negative(right)))
        return form

    def _signed(self) -> Form:
        if self._accept("+"):
            return self._product()
        if self._accept("-"):
            return negative(self._product())
        if self._is("\\pm", "\\mp"):
            return PlusMinus(Number(Fraction(0)), self._product_after(self._next()), False)
        return self._product()

    def _product_after(self, _: Token) -> Form:
        return self._product()

    def _product(self) -> Form:
        form = self._power()
        while True:
            if self._accept("\\cdot", "\\times", "*"):
                form = times(form, self._operand())
            elif self._accept("/"):
                form = over(form, self._operand())
            elif self._accept("\\div"):  # an operation, where a/b is a fraction
                form = over(form, Sum((self._operand(),)))
            elif self._is_factor():
                form = times(form, self._power())
            else:
                return form

    def _operand(self) -> Form:
        return negative(self._power()) if self._accept("-") else self._power()

    def _is_factor(self) -> bool:
        """Whether the next token continues a product without a sign. Two numbers side by side do not."""
        token = self._peek()
        if token.kind is Kind.WORD:
            return (
                not (is_unit(token.text) and len(token.text) > 1)
                and (len(token.text) <= 3 or token.text in _FUNCTION_WORDS)
                and token.text not in _JOINTS
            )
        if token.kind is Kind.COMMAND:
            name = token.text[1:]
            return name in _GREEK or name in _FUNCTIONS or token.text in _ATOM_COMMANDS
        return token.kind is Kind.SIGN and (token.text in "([{" or (token.text == "|" and not self._in_bars))

    def _power(self) -> Form:
        form = self._atom()
        for _ in range(_DEEPEST):
            if self._accept("^"):
                form = self._raised(form)
            elif self._is("!"):
                self._next()
                form = Apply("factorial", (form,))
            else:
                return form
        raise TooDeep(f"more than {_DEEPEST} powers of one another")

    def _raised(self, form: Form) -> Form:
        if self._accept("\\circ"):
            return times(form, _DEGREE)
        exponent = self._group()
        return times(form, _DEGREE) if exponent == Symbol("circ") else Power(form, exponent)

    # --- atoms

    def _group(self) -> Form:
        """The argument of a command or an exponent: braces, or one token with its sign."""
        if self._is("{"):
            return self._atom()
        if self._accept("-"):
            return negative(self._nested(self._group))
        token = self._peek()
        if token.kind is Kind.NUMBER and len(token.text) <= LONGEST_DIGITS:
            return Number(Fraction(self._next().text))
        if token.kind is Kind.COMMAND or self._is("("):
            return self._atom()
        if token.kind is Kind.WORD:
            return self._first_letter()
        raise Unreadable(f"{token.text!r} where an argument belongs")

    def _argument(self) -> Form:
        r"""An argument of \frac or \sqrt: braces, or one digit, letter or command."""
        token = self._peek()
        if token.kind is Kind.NUMBER and len(token.text) > 1:
            self._tokens[self._at] = Token(Kind.NUMBER, token.text[1:], False)
            return Number(Fraction(int(token.text[0]))) if token.text[0] != "." else self._refuse(token)
        return self._group()

    def _refuse(self, token: Token) -> Form:
        raise Unreadable(f"{token.text!r} cannot stand here")

    def _first_letter(self) -> Form:
        token = self._peek()
        if len(token.text) == 1:
            self._next()
        else:
            self._tokens[self._at] = Token(Kind.WORD, token.text[1:], False)
        return Symbol(token.text[0])

    def _atom(self) -> Form:
        return self._nested(self._read_atom)

    def _read_atom(self) -> Form:
        token = self._next()
        match token.kind:
            case Kind.NUMBER:
                return self._number(token)
            case Kind.WORD:
                return self._word(token)
            case Kind.COMMAND:
                return self._command(token)
            case Kind.SIGN if token.text in ("(", "[", "\\{", "{"):
                return self._bracketed(token.text)
            case Kind.SIGN if token.text == "|":
                return self._bars()
            case _:
                raise Unreadable(f"{token.text!r} where a value belongs")

    def _number(self, token: Token) -> Form:
        if len(token.text) > LONGEST_DIGITS:
            raise TooDeep("a number too long to compare")
        value = Fraction(token.text)
        if self._accept("_"):
            return based(token.text, self._group())
        following = self._peek()
        if following.text == "\\frac" and token.text.isdigit():
            self._next()
            part = self._fraction()
            if not isinstance(part, Number) or part.value < 0:
                return times(Number(value), part)
            return Number(value + part.value)
        if following.kind is Kind.NUMBER:
            raise Unreadable("two numbers side by side")
        return self._scientific(Number(value), token.text)

    def _scientific(self, number: Number, digits: str) -> Form:
        r"""The number times a power of ten that follows at once: 1.6 \times 10^{-19}, 5e-7."""
        e = self._peek()
        if e.kind is Kind.WORD and e.text in ("e", "E") and not e.spaced:
            sign = 1 if self._peek(1).text in ("-", "+") else 0
            exponent = self._peek(1 + sign)
            if exponent.kind is Kind.NUMBER and exponent.text.isdigit() and not exponent.spaced:
                self._at += 2 + sign
                return power_of_ten(digits, (self._peek(-2).text if sign else "") + exponent.text)
        if self._is("\\times", "\\cdot", "*") and self._peek(1).text == "10" and self._peek(2).text == "^":
            self._at += 3
            exponent_form = self._group()
            if isinstance(exponent_form, Number) and exponent_form.value.denominator == 1:
                return power_of_ten(digits, str(exponent_form.value))
            return times(number, Power(_TEN, exponent_form))
        return number

    def _word(self, token: Token) -> Form:
        if token.text in _NAMED_WORDS:
            return self._command(Token(Kind.COMMAND, _NAMED_WORDS[token.text], token.spaced))
        if token.text in _FUNCTIONS:
            return self._function(token.text)
        if len(token.text) > 3:
            raise Unreadable(f"{token.text!r} within an expression")
        form: Form = self._symbol(token.text[-1])
        for letter in reversed(token.text[:-1]):
            form = times(Symbol(letter), form)
        return form

    def _symbol(self, name: str) -> Form:
        """A variable with its subscript and primes, or a function of it applied to one value: f(x), W(n)."""
        if self._accept("_"):
            name = f"{name}_{_subscript(self._group())}"
        while self._accept("'", "\\prime"):
            name += "'"
        opening, inside, closing = self._peek(), self._peek(1), self._peek(2)
        is_call = opening.text == "(" and not opening.spaced and closing.text == ")"
        if is_call and inside.kind in (Kind.NUMBER, Kind.WORD) and name not in ("e", "i", "x", "y", "z"):
            self._at += 3
            argument = (
                Number(Fraction(inside.text[:LONGEST_DIGITS])) if inside.kind is Kind.NUMBER else Symbol(inside.text)
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
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _GREEK:
            return self._symbol(name)
        if name == "circ":
            return Symbol(name)
        if name in ("lfloor", "lceil"):
            inside = self._sum()
            self._expect("\\rfloor" if name == "lfloor" else "\\rceil")
            return Apply(name[1:], (inside,))
        if name in ("overline", "bar", "widehat", "tilde"):
            return Apply(name, (self._group(),))
        if name == "langle":
            return self._bracketed("\\langle")
        if name == "mathbb":
            return Symbol(f"mathbb {_subscript(self._group())}")
        if name == "begin":
            return self._matrix()
        raise Unreadable(f"{token.text} is not evaluated here")

    def _fraction(self) -> Form:
        numerator = self._argument()
        return over(numerator, self._argument())

    def _root(self) -> Form:
        if not self._accept("["):
            return Power(self._argument(), _HALF)
        degree = self._sum()
        self._expect("]")
        return Power(self._argument(), over(Number(Fraction(1)), degree))

    def _function(self, name: str) -> Form:
        """A named function with its power, its base and its argument: \\sin^2 2x, \\log_2 (x+1)."""
        base = self._group() if self._accept("_") else None
        exponent = self._group() if self._accept("^") else None
        if base is None and exponent is not None and self._accept("_"):
            base = self._group()
        argument = self._nested(self._read_atom if self._is("(", "{") else self._plain_product)
        if exponent == _MINUS_ONE and name in ("sin", "cos", "tan"):
            return Apply("arc" + name, (argument,))
        form = Apply(name, (argument,) if base is None else (argument, base))
        return form if exponent is None else Power(form, exponent)

    def _plain_product(self) -> Form:
        """A function's argument without parentheses: it ends before the next sign or function."""
        form = self._power()
        while self._is_factor() and not self._is("(") and self._peek().text.lstrip("\\") not in _FUNCTIONS:
            form = times(form, self._power())
        return form

    def _bars(self) -> Form:
        if self._in_bars:
            raise Unreadable("bars within bars")
        self._in_bars = True
        inside = self._sum()
        self._in_bars = False
        self._expect("|")
        return Apply("abs", (inside,))

    def _bracketed(self, opening: str) -> Form:
        in_bars, self._in_bars = self._in_bars, False
        closings = _CLOSING[opening]
        if opening == "\\{" and self._accept("\\}"):
            return Members(())
        items = self._items()
        closing = self._expect(*closings)
        self._in_bars = in_bars
        if opening == "\\{":
            return Members(items)
        if len(items) == 1:
            return items[0]
        if opening == "{":
            return Listing(items)
        return Bracket(opening.lstrip("\\"), closing.lstrip("\\"), items)

    def _matrix(self) -> Form:
        name = self._environment()
        if name == "array" and self._accept("{"):
            while self._peek().kind is Kind.WORD or self._is("|"):
                self._next()
            self._expect("}")
        rows: list[tuple[Form, ...]] = []
        while not self._accept("\\end"):
            cells = [self._sum()]
            while self._accept("&"):
                cells.append(self._sum())
            rows.append(tuple(cells))
            if not self._accept("\\\\") and not self._is("\\end"):
                raise Unreadable(f"{self._peek().text!r} in a matrix")
        if self._environment() != name or len({len(row) for row in rows}) != 1:
            raise Unreadable("a matrix with rows of different lengths, or closed as another")
        return Apply("det", (Matrix(tuple(rows)),)) if name == "vmatrix" else Matrix(tuple(rows))

    def _environment(self) -> str:
        self._expect("{")
        name = self._next().text
        self._expect("}")
        if name not in _MATRICES:
            raise Unreadable(f"the environment {name!r} is no matrix")
        return name


_FUNCTION_WORDS = _FUNCTIONS | _NAMED_WORDS.keys()
_ATOM_COMMANDS = frozenset(
    r"\frac \sqrt \binom \lfloor \lceil \langle \overline \begin".split()  # noqa: SIM905
)


def _words_alone(tokens: Sequence[Token]) -> Text | None:
    """An answer of several plain words, such as "no solution"; letters one by one are variables."""
    words = tokens[:-1]
    if len(words) < 2 or any(token.kind is not Kind.WORD for token in words):
        return None
    texts = [token.text for token in words]
    if max(map(len, texts)) == 1 or not _JOINTS.isdisjoint(texts) or not _FUNCTION_WORDS.isdisjoint(texts):
        return None
    return Text(" ".join(texts))


def _angle(value: Form) -> Form:
    """A value in degrees as the quantity that it is."""
    match value:
        case Product((*rest, last)) if last == _DEGREE:
            return Quantity(rest[0] if len(rest) == 1 else Product(tuple(rest)), "°")
        case _:
            return value


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
            raise Unreadable("a subscript that is no name")
