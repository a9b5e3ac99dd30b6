"""Answers built to hang, crash or fool the math check; random ones too."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.reading.parsed_answer import extract_gold
from services.verifier.config import Extraction
from tests.verifier.judging import LONGEST, find, is_right, rows_of

GOLDS = (
    "4",
    r"\frac{1}{2}",
    "x^2+1",
    "(1,2)",
    r"\{1,2\}",
    r"x\le 2",
    r"\text{east}",
    r"1\pm\sqrt{5}",
    "101_2",
    r"25\%",
    r"30^\circ",
    r"[0,1)\cup(2,3]",
    "1:2",
    "y=2x+1",
    "x=3 or x=4",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\sqrt{2}",
)
NOTATION = (
    r"x 2 10 + - ^ { } ( ) [ ] \{ \} \frac \sqrt ! \pm \cup \setminus , = < "
    r"\le | _ \sin \log \text{or} \text{cm} \pi i "
    r"e \infty % \\ & \begin{pmatrix} \end{pmatrix} . : ; \in \binom \lfloor \rfloor / \cdot \times ^\circ \overline "
    r"\mathbb{R} ' \langle \rangle é $ \boxed{ E e5 \angle \mathrm{m/s} or and"
)
PIECES = NOTATION.split()

# Each of these wants the reward of the gold beside it, and must not have it.
FOOLS_4 = (
    r"4 or 5",
    "4, 5",
    "4;5",
    "4 and 5",
    r"4 \text{ or } 5",
    r"4\text{ (or 5)}",
    r"4 \lor 5",
    r"4\ 5",
    r"4 \quad 5",
    r"4\\5",
    "4 | 5",
    r"\{4\}\cup\{5\}",
    "[3,5]",
    "3<x<5",
    r"x\in\{3,4\}",
    r"\mathbb{R}",
    r"4\pm 1",
    r"\ne 5",
    r"x \ge 4",
    "4x",
    "4x/x",
    "x",
    r"\text{four}",
    "4.0000001",
    "3.9999999999999",
    "4+10^{-50}",
    r"4\cdot(1+10^{-99})",
    "4!",
    "-4",
    "|4|",
    r"\lfloor 4.5\rfloor",
    r"\max(3,4)",
    r"4 \bmod 10",
    r"400\%",
    "5=4",
    "x=4=5",
    "x=5,x=4",
    "4 4",
    "2+2",
    "2(2)",
    r"8\div 2",
    r"\int_0^4 1 dx",
    r"\frac{d}{dx}4x",
    r"\lim_{n\to\infty}4",
    r"\operatorname{lcm}(2,4)",
    "gcd(8,12)",
    r"\log_2 16",
    r"e^{\ln 4}",
    r"4\sin(\pi/2)",
    r"\frac{4\pi}{\pi}",
    "4i^4",
    r"4\text{ is wrong, }5",
    r"\text{not }4",
    "④",
    "IV",
    "0x4",
    r"4\text{ thousand}",
    r"4\text{ to }6",
    "__import__('os').getpid()",
    r"4 \text{ base } 5",
    "4+e^{-1000}",
    r"4+2^{-1000}",
    r"\tanh(200)+3",
    r"f(4)",
    r"4\times",
    "(4,)",
    r"4_{10}5",
    r"\sqrt{16.0000001}",
)
FOOLS = (
    (r"\pi", "3.14"),
    (r"\pi", "3.141592653589793"),
    (r"\pi", r"\frac{22}{7}"),
    ("3.14", r"\pi"),
    ("0", "10^{-20}"),
    (r"\pi", "3.14159265358979323846264338327950288419716939937510"),
    ("10^{20}", "10^{20}+1"),
    ("x", r"x+10^{-40}"),
    ("12345678901234567890", "12345678901234567891"),
    ("x+1", "y+1"),
    ("x^2+1", "x^2+1=0"),
    (r"\{1,2\}", "(1,2)"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(1,2),(3,4)"),
    ("1,2", "1,2,3"),
    ("1,2", "1,1"),
    ("A", "A,B"),
    ("A", r"\text{A or B}"),
    (r"\text{yes}", r"\text{yes or no}"),
    ("1011_2", "11"),
    ("11", "1011_2"),
    (r"\infty", r"-\infty"),
    ("0", r"\frac{0}{0}"),
    ("x=2", "2x=4"),
    ("x=2,y=3", "x=3,y=2"),
    ("x=2,y=3", "3,2"),
    (r"x\le 2", "x<2"),
    ("x<2", "y<2"),
    ("x>2", "x>2,x<5"),
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"0.5\%", "0.5"),
    (r"\frac{1}{3}", "0.33333333333333333333"),
    ("1", "0.99999999999"),
    ("262537412640768744", r"e^{\pi\sqrt{163}}"),
    ("1.6e-19", "9.1e-31"),
    ("1e-20", "1e-21"),
    ("(100,101)", "[100,101)"),
    ("(100,101)", "[100,101]"),
    ("276,000", "276,00"),
    ("276,000", r"276,0\phantom{00}"),
    (r"x\in(-3,2)", r"1+x\in(-3,2)"),
    (r"x=0,\pi,2\pi", r"y=0,\pi,2\pi"),
    ("E(W)=21/2", "E(Q)=21/2"),
    (r"\log_5 x", r"\ln_5 x"),
    ("0.822", r"0.822\text{ mod 7}"),
    (r"\lfloor n/2\rfloor", "0"),
    (r"\lceil n/2\rceil", "1"),
    (r"\lfloor n/2\rfloor", r"\lfloor n/7\rfloor"),
    (r"\lfloor n/100\rfloor", "0"),
    (r"\lfloor n/2\rfloor", r"\lceil n/2\rceil"),
    ("|x-5|", "5-x"),
    ("x!!", "(x!)!"),
    (r"1-e^{-100}", "1"),
    (r"\log(0.01)=-2", "1=2"),
    ("5000!+1", "5000!"),
    (r"(-\infty,2)\cup(3,\infty)", r"[-\infty,2)\cup(3,\infty)"),
    (r"p \land q", r"p \lor q"),
    (r"4 \mathrm{ft} \times 12 \mathrm{ft}", "4"),
    (r"\text{A-}", "A"),
    (r"\text{B+}", "B"),
)


@pytest.mark.parametrize(("gold", "answer"), [*(("4", answer) for answer in FOOLS_4), *FOOLS])
def test_a_fool_s_answer_is_not_rewarded(gold: str, answer: str) -> None:
    assert not is_right(gold, rf"\boxed{{{answer}}}")


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{3} or \boxed{4}",
        r"\boxed{4} or \boxed{3}",
        r"either \boxed{3}, \boxed{4} or \boxed{5}.",
        r"\boxed{3}\boxed{4}",
        "\\boxed{3}\n\\boxed{4}",
        r"$\boxed{3}$, $\boxed{4}$",
        r"<think>\boxed{4}</think>",
        r"\boxed{4",
        r"4",
        r"The final answer is 4",
        r"\boxed{4} \boxed{}",
        r"\boxed{\text{it is } 4}",
    ],
)
def test_a_hedge_over_several_boxes_is_not_rewarded(response: str) -> None:
    assert not is_right("4", response)


UNITS = (
    "(",
    "{",
    r"\sqrt{",
    "-",
    "^2",
    "x!",
    "_1",
    r"\frac",
    r"\begin{pmatrix}",
    "x+",
    "1,",
    "|",
    r"\sin",
    r"\pm 1",
    "2-",
    "^(",
)


@pytest.mark.parametrize("unit", UNITS)
def test_nine_thousand_characters_of_anything_take_no_time(unit: str) -> None:
    text = unit * (9_000 // len(unit))
    start = time.process_time()
    for gold in ("x^2+1", text[:1000]):
        find(gold, rf"\boxed{{{text}}}")
        find(gold, rf"\boxed{{{text[:1_900]}}}")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "answer",
    [
        "1000000000!",
        "((9!)!)!",
        r"\binom{10^{9}}{5\cdot 10^{8}}",
        "10^{10^{10}}",
        "2^{2^{2^{2^{2^{2}}}}}",
        "9^{9^{9^{9}}}",
        r"\cos(10^{10^{8}})",
        r"\sqrt[10^{9}]{10^{10^{9}}+1}",
        "(1/7)^{10^7}",
        "1e999999999",
        r"e^{e^{e^{e^{9}}}}",
        "+".join(f"\\sqrt{{{n}}}" for n in range(250)),
        "".join(f"(x+{n})" for n in range(250)),
        "!".join("3" * 9),
        r"\{" + ",".join(f"\\sqrt{{{n}}}" for n in range(180)) + r"\}",
        "+".join(["200!"] * 300),
    ],
    ids=lambda answer: answer[:12],
)
@pytest.mark.parametrize("gold", ["7", r"\sqrt{7}", "x^2", r"\{1,2,3\}"])
def test_a_value_that_cannot_be_written_out_takes_no_time(answer: str, gold: str) -> None:
    start = time.process_time()
    find(gold, rf"\boxed{{{answer}}}")
    assert time.process_time() - start < 5


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.sampled_from(GOLDS))
def test_any_text_in_a_box_is_judged(text: str, gold: str) -> None:
    find(gold, rf"\boxed{{{text}}}")
    if extract_gold(text, LONGEST) is not None:
        find(text, rf"\boxed{{{gold}}}")


@pytest.mark.parametrize("seed", range(4))
def test_random_notation_is_judged(seed: int) -> None:
    """Of pieces that mean something: these reach what random text does not."""
    draw = random.Random(seed)
    for _ in range(300):
        count = draw.choice((1, 3, 6, 12, 30))
        kind = draw.random()
        if kind < 0.6:
            text = "".join(draw.choice(PIECES) for _ in range(count))
        else:
            text = (draw.choice(PIECES) + draw.choice(PIECES)) * count
        gold = draw.choice(GOLDS) if draw.random() < 0.7 else "".join(draw.choice(PIECES) for _ in range(5))
        if extract_gold(gold, LONGEST) is not None:
            find(gold, rf"\boxed{{{text}}}")


@pytest.mark.parametrize("gold", GOLDS)
def test_a_gold_is_right_for_itself(gold: str) -> None:
    assert is_right(gold, rf"\boxed{{{gold}}}")
    assert is_right(gold, rf"So it is $\boxed{{ {gold} }}$.")


@pytest.mark.parametrize(
    ("way", "accepted"),
    [
        ("box", 0),
        ("hashes", 0),
        ("answer_tag", 0),
        ("answer_is", 0),
        ("response", 0),
        ("last_box", 1),
        ("last_number", 2),
    ],
)
def test_what_each_way_accepts_of_the_hostile_answers(way: Extraction, accepted: int) -> None:
    """Without reading them as math-verify would: the last box of alternatives, the last number of several."""
    rows = [row for row in rows_of("math_attacks.jsonl.gz") if row["expected"] == "reject"]
    found = [find(row["gold"], row["payload"], (way,)) for row in rows]
    assert sum(it is not None and it.equivalence is Equivalence.SAME for it in found) == accepted
    assert len(rows) == 54
