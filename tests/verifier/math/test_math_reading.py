"""What the text of an answer is read as."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.math.reading.forms import (
    Apply,
    Bracket,
    FiniteSet,
    Form,
    Matrix,
    Number,
    Numeral,
    PlusMinus,
    Power,
    Product,
    Quantity,
    Ratio,
    Relation,
    Relator,
    Scientific,
    SetOperation,
    Sum,
    Symbol,
    Text,
    UnreadableAnswer,
    ValueList,
)
from services.verifier.checks.math.reading.parsed_answer import extract_gold, parse_answer
from services.verifier.checks.math.reading.tokens import normalize_words
from services.verifier.checks.math.reading.units.conversion import conversion
from services.verifier.checks.math.reading.units.phrase import is_unit, scale_and_unit


def n(value: int, under: int = 1) -> Number:
    return Number(Fraction(value, under))


X, Y, PI = Symbol("x"), Symbol("y"), Symbol("pi")
FORMS: dict[str, Form] = {
    "18": n(18),
    r"\frac34": n(3, 4),
    "2\\frac{1}{2}": n(5, 2),
    "0.1\\overline{6}": n(1, 6),
    r"5\cdot 10^{9999}": Scientific(5, 9999),
    "x": X,
    "x_1": Symbol("x_1"),
    "x'": Symbol("x'"),
    "π": PI,
    r"\sqrt{2}": Power(n(2), n(1, 2)),
    r"\sqrt[3]{x}": Power(X, n(1, 3)),
    "x^2": Power(X, n(2)),
    "x²": Power(X, n(2)),
    "x+1": Sum((X, n(1))),
    "x-1": Sum((X, n(-1))),
    "2x": Product((n(2), X)),
    "xy": Product((X, Y)),
    r"2\cdot x": Product((n(2), X)),
    "x/2": Product((n(1, 2), X)),
    r"1\pm x": PlusMinus(n(1), X, False),
    r"\sin 2x": Apply("sin", (Product((n(2), X)),)),
    r"\sin^{-1} x": Apply("arcsin", (X,)),
    r"\sin^2 x": Power(Apply("sin", (X,)), n(2)),
    r"\log_2 x": Apply("log", (X, n(2))),
    "5!": Apply("factorial", (n(5),)),
    "|x|": Apply("abs", (X,)),
    r"\lfloor x \rfloor": Apply("floor", (X,)),
    "f(2)": Apply("f", (n(2),)),
    "1, 2": ValueList((n(1), n(2))),
    "1 and 2": ValueList((n(1), n(2))),
    r"1 \text{ or } 2": ValueList((n(1), n(2)), joined_by_or=True),
    r"\{1, 2\}": FiniteSet((n(1), n(2))),
    r"\{\}": FiniteSet(()),
    "(1, 2)": Bracket("(", ")", (n(1), n(2))),
    "[0, 1)": Bracket("[", ")", (n(0), n(1))),
    r"\langle 1, 2 \rangle": Bracket("langle", "rangle", (n(1), n(2))),
    r"[0,1]\cup[2,3]": SetOperation("cup", (Bracket("[", "]", (n(0), n(1))), Bracket("[", "]", (n(2), n(3))))),
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": Matrix(((n(1), n(2)), (n(3), n(4)))),
    "1:2": Ratio((n(1), n(2))),
    "101_2": Numeral("101", 2),
    "x = 5": Relation((X, n(5)), (Relator.EQUAL,)),
    r"1 < x \le 2": Relation((n(1), X, n(2)), (Relator.LESS, Relator.LESS_EQUAL)),
    "x >= 2": Relation((X, n(2)), (Relator.GREATER_EQUAL,)),
    r"5 \text{ cm}": Quantity(n(5), "cm"),
    "5 inches": Quantity(n(5), "in"),
    r"30^\circ": Quantity(n(30), "°"),
    "30 degrees": Quantity(n(30), "°"),
    r"28\%": Quantity(n(28), "%"),
    r"3 \text{ million dollars}": Quantity(n(3_000_000), "$"),
    r"9 \text{ square inches}": Quantity(n(9), "in^2"),
    r"9 \text{ cm}^2": Quantity(n(9), "cm^2"),
    r"\text{east}": Text("east"),
    "no solution": Text("no solution"),
}


@pytest.mark.parametrize("text", FORMS)
def test_a_text_is_read_as_its_form(text: str) -> None:
    assert parse_answer(text).forms == (FORMS[text],)


def test_a_comma_before_three_digits_is_read_both_ways() -> None:
    assert parse_answer("1,234").forms == (n(1234), ValueList((n(1), n(234))))


UNREADABLE = {
    "": "value",
    "1 2": "side by side",
    "(1": "instead of",
    "1)": "left over",
    r"\int x": "not evaluated here",
    r"\frac{1}{0}": "division by zero",
    "3_2": "beyond its base",
    "1_{1}": "base that is no integer from 2 to 36",
    r"\begin{proof}1\end{proof}": "not known here",
    r"\begin{pmatrix}1&2\\3\end{pmatrix}": "different lengths",
    "||x||": "bars within bars",
    "5 or so many more than that": "",
    "(" * 100 + "1" + ")" * 100: "nested deeper",
    "x" + "! " * 100: "powers of one another",
    "x!!!": "more than two factorials",
    "+1" * 1_001: "longer than 2000",
}


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:12])
def test_what_cannot_be_read_says_why(text: str) -> None:
    parsed = parse_answer(text)
    assert parsed.forms == ()
    assert UNREADABLE[text] in parsed.unreadable_reason
    assert parsed.unreadable_reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"x \leq 2", "x ≤ 2"),
        (r"$x$", "x"),
        (r"\left( 1, 2 \right)", "(1, 2)"),
        (r"\textbf{east}", r"\text{east}"),
        (r"1{,}000", r"1\,000"),
    ],
)
def test_two_spellings_are_written_alike(one: str, other: str) -> None:
    assert parse_answer(one).is_written_as(parse_answer(other))


def test_words_are_compared_by_their_letters() -> None:
    assert normalize_words("The  Odd-numbers!") == normalize_words("odd numbers")
    assert normalize_words("4.5") != normalize_words("45")


@pytest.mark.parametrize(
    "line",
    """
    cm                        | inches                | 127/50
    cm                        |                       | 1
    cm^2                      | cm^3                  | None
    square inches             | inches^2              | 1
    sq. units                 | cm^2                  | 1
    ft/s                      | hours/s               | None
    ft/s                      | ft/miles              | None
    sq. units                 | cm                    | None
    km                        | meters                | 1/1000
    W                         | kW                    | 1000
    nm                        | m                     | 1000000000
    eV                        | MeV                   | 1000000
    km/h                      | kilometers per hour   | 1
    m/s^2                     | m s^{-2}              | 1
    J                         | N m                   | 1
    degrees Celsius           | ^{\\circ}C              | 1
    ^{\\circ}C                  | ^{\\circ}F              | None
    ^{\\circ}C                  | degrees               | 1
    dollars                   | cents                 | 1/100
    p.m.                      | PM                    | 1
    p.m.                      | a.m.                  | None
    red apples                | apples                | 1
    apples                    | pears                 | None
    hours                     | hours of work         | 1
    hours                     | people                | None
    MB                        | GB                    | None
    mW                        | MW                    | 1000000000
    """.strip().splitlines(),
)
def test_units_convert_or_contradict_each_other(line: str) -> None:
    gold, answer, factor = (column.strip() for column in line.split("|"))
    units = [scale_and_unit(unit)[1] if unit else "" for unit in (gold, answer)]
    assert conversion(*units) == (None if factor == "None" else Fraction(factor))


@pytest.mark.parametrize(
    "words",
    """
    factorial | fifths | halves | squared | cubed | choose 2 | hundredths | in binary | is wrong | i | not | or so
    or 5
    base two | modulo 7 | times | less | doubled | quarters | dozens | to the fourth | to 6 | thirds | percent of x | k
    mod 5 | plus one | squared apples | out of 10 | lakh | gross | score | inverse | negative | root | square | in hex
    ft 3 in | apples is wrong | ^2 | more than 4 | at least | or more | per | each | red | in base 7 | recurring | bar x
    million million and one | repeating | point five | and a half | hundred and one | th | nd | prime' | ! | in radix 3
    """.replace("\n", "|").split("|"),
)
def test_other_words_behind_a_value_make_it_unreadable(words: str) -> None:
    if words.strip():
        with pytest.raises(UnreadableAnswer):
            scale_and_unit(words.strip())


@pytest.mark.parametrize(
    "words",
    """
    apples | ways | students | square inches | cm^2 | different ways | red marbles | in total | people in the room
    miles per hour | dollars per pound | inches of ribbon | men | ordered pairs | of the students
    gallons of water | feet tall | years old | positive integers
    """.replace("\n", "|").split("|"),
)
def test_counted_things_are_read(words: str) -> None:
    if words.strip() not in ("", "in total"):
        scale, unit = scale_and_unit(words.strip())
        assert (scale, bool(unit)) == (1, True)


def test_known_units_are_no_variables() -> None:
    assert is_unit("Inches")
    assert not any(map(is_unit, ("xyz", "nm", "BED", "mn")))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", "18"),
        (" 18\n", "18"),
        (r"so it is $\boxed{18}$", "18"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        ("Steps.\n#### 18", "18"),
        (r"\boxed{18", "18"),
        ("", None),
        (" ", None),
        ("1" * 101, None),
    ],
)
def test_a_gold_says_what_its_box_or_last_line_says(gold: str, answer: str | None) -> None:
    assert extract_gold(gold, 100) == answer


@given(st.text(st.sampled_from("0123456789+-*/^(){}[]|,.:_=<>!xyπ\\ "), max_size=40))
def test_any_notation_is_read_or_says_why(text: str) -> None:
    parsed = parse_answer(text)
    assert bool(parsed.forms) != bool(parsed.unreadable_reason)
