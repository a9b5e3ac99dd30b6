"""Golds of many shapes with texts that say the same and texts that do not, known by how they are built."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.verifier.math.mutants import CHANGING_WORDS


@dataclass(frozen=True)
class GeneratedGold:
    text: str
    same: tuple[str, ...]
    other: tuple[str, ...]


def _integer(r: Random) -> GeneratedGold:
    n = r.randrange(12, 99_999)
    same = (
        f"{n}.0",
        f"\\left({n}\\right)",
        f"{n}\\,",
        f"\\frac{{{2 * n}}}{{2}}",
        f"\\boldsymbol{{{n}}}",
        f"+{n}",
        f"{n}.",
    )
    other = (
        f"{n + 1}",
        f"-{n}",
        f"{n}0",
        f"{n}.01",
        f"{n}!",
        f"{n}^2",
        f"\\frac{{1}}{{{n}}}",
        f"{n}\\%",
        f"{n}i",
        f"{n}n",
    )
    hidden = (
        f"{str(n)[:-1]}\\phantom{{{n % 10}}}{(n + 1) % 10}",
        f"\\hspace{{{n}}}1",
        f"{n}+10^{{-40}}",
        f"{n}_{{11}}",
    )
    return GeneratedGold(str(n), same, other + hidden)


def _fraction(r: Random) -> GeneratedGold:
    b = r.randrange(3, 90)
    a = r.choice([a for a in range(1, 200) if math.gcd(a, b) == 1 and a % b])
    same = (
        f"{a}/{b}",
        f"\\dfrac{{{3 * a}}}{{{3 * b}}}",
        f"\\frac{{-{a}}}{{-{b}}}",
        f"{a} / {b}",
    )
    other = (
        f"\\frac{{{b}}}{{{a}}}", f"-\\frac{{{a}}}{{{b}}}", f"\\frac{{{a + 1}}}{{{b}}}", f"\\frac{{{a}}}{{{b + 1}}}",
        f"\\frac{{{a}}}{{{b}}}+1", f"{a / b:.12f}1", f"{a}", f"{a}:{b}x", f"{a}\\frac{{{a}}}{{{b}}}",
    )  # fmt: skip
    return GeneratedGold(f"\\frac{{{a}}}{{{b}}}", same, other)


def _surd(r: Random) -> GeneratedGold:
    a, b, c = r.randrange(2, 20), r.choice((2, 3, 5, 6, 7, 10, 11)), r.randrange(2, 9)
    gold = f"{a}+{c}\\sqrt{{{b}}}"
    same = (
        f"{c}\\sqrt{{{b}}}+{a}",
        f"{a}+\\sqrt{{{c * c * b}}}",
        f"{a}+{c}\\cdot {b}^{{1/2}}",
        f"{a} + {c} \\sqrt{{{b}}}",
    )
    other = (
        f"{a}-{c}\\sqrt{{{b}}}", f"{a}+{c}\\sqrt{{{b + 1}}}", f"{a}+{c + 1}\\sqrt{{{b}}}", f"{a}+{c}\\sqrt[3]{{{b}}}",
        f"{a}+{c}{b}", f"{c}\\sqrt{{{b}}}", f"{a}+\\sqrt{{{c * b}}}", f"{a + c * math.sqrt(b):.10f}",
        f"{gold}+10^{{-50}}",
        f"{a}\\pm {c}\\sqrt{{{b}}}", f"({a}+{c})\\sqrt{{{b}}}", f"\\lfloor {gold}\\rfloor",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _polynomial(r: Random) -> GeneratedGold:
    a, b, c = (r.choice((-7, -5, -3, -2, 2, 3, 4, 6)) for _ in range(3))
    gold = f"{a}x^2{b:+}x{c:+}"
    same = (f"{c}{b:+}x{a:+}x^2", f"{a}x^{{2}} {b:+} x {c:+}", f"x({a}x{b:+}){c:+}", f"{a}\\cdot x\\cdot x{b:+}x{c:+}")
    other = (
        f"{a}x^3{b:+}x{c:+}", f"{a}x^2{-b:+}x{c:+}", f"{a}x^2{b:+}x{-c:+}", f"{a + 1}x^2{b:+}x{c:+}", f"{a}x^2{b:+}x",
        f"{a}y^2{b:+}y{c:+}", f"{a}x^2{b:+}x{c:+}=0", f"2({gold})", f"{a}x^2{b:+}{c:+}", f"{gold}+10^{{-40}}x",
        f"{a}x^2{b:+}|x|{c:+}", f"\\frac{{1}}{{{gold}}}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _in_n(r: Random) -> GeneratedGold:
    a, b = r.randrange(2, 9), r.randrange(2, 9)
    gold = f"{b}\\cdot {a}^n+n!"
    same = (f"n!+{b}\\cdot {a}^{{n}}", f"{b}({a}^n)+n!", f"\\frac{{{b}\\cdot {a}^{{n+1}}}}{{{a}}}+n!")
    other = (
        f"{b}\\cdot {a}^n", f"{b}\\cdot {a}^{{n+1}}+n!", f"{b + 1}\\cdot {a}^n+n!", f"{b}\\cdot {a}^n+n",
        f"{b}\\cdot {a}^n-n!",
        f"{b}\\cdot {a}^n+(n+1)!", f"{b}\\cdot {a}^m+m!", f"{b}\\cdot {a}^n+n!!", f"{b}\\cdot n^{a}+n!",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _steps(r: Random) -> GeneratedGold:
    a, b = r.randrange(2, 30), r.randrange(1, 9)
    gold = f"\\left\\lfloor\\frac{{n}}{{{a}}}\\right\\rfloor+{b}"
    same = (f"{b}+\\lfloor n/{a}\\rfloor", f"\\lfloor n/{a}+{b}\\rfloor", f"\\lfloor\\tfrac{{n}}{{{a}}}\\rfloor+{b}")
    other = (
        f"{b}", f"\\lceil n/{a}\\rceil+{b}", f"\\lfloor n/{a + 1}\\rfloor+{b}", f"\\lfloor (n+1)/{a}\\rfloor+{b}",
        f"n/{a}+{b}", f"\\lfloor n/{a}\\rfloor", f"\\lfloor n/{a}\\rfloor+{b + 1}", f"\\lfloor n\\rfloor/{a}+{b}",
        f"\\lfloor n/{a * 100}\\rfloor+{b}", f"\\lfloor m/{a}\\rfloor+{b}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _tiny(r: Random) -> GeneratedGold:
    k = r.randrange(60, 400)
    big, small = r.choice(
        [("1", f"e^{{-{k}}}"), (f"e^{{{k}}}", "1"), (f"{k}!", "1"), (f"(1+\\sqrt2)^{{{k}}}", f"(1-\\sqrt2)^{{{k}}}"),
         ("\\pi", f"10^{{-{k}}}"), (f"3^{{{k}}}\\sqrt{{2}}", "\\sqrt{5}"), ("\\sqrt{7}", f"2^{{-{k}}}"),
         (f"\\cosh({k})", f"e^{{-{k}}}")]
    )  # fmt: skip
    gold = f"{big}+{small}"
    same = (f"{small}+{big}", f"{big} + {small}", f"({big})+({small})")
    return GeneratedGold(
        gold, same, (big, f"{big}-{small}", f"{big}+2\\cdot {small}", f"{big}+{small}^2+{small}", small)
    )


def _interval(r: Random) -> GeneratedGold:
    a, b = sorted(r.sample(range(-20, 20), 2))
    left, right = r.choice("(["), r.choice(")]")
    other_left, other_right = ({"(": "[", "[": "("}[left]), ({")": "]", "]": ")"}[right])
    gold = f"x\\in{left}{a},{b}{right}"
    same = (f"{left}{a},{b}{right}", f"x \\in \\left{left}{a}, {b}\\right{right}")
    other = (
        f"{other_left}{a},{b}{right}", f"{left}{a},{b}{other_right}", f"{left}{a},{b + 1}{right}",
        f"{left}{-a - 1},{b}{right}",
        f"{left}{b},{a}{right}", f"y\\in{left}{a},{b}{right}", f"\\{{{a},{b}\\}}", f"{a},{b}", f"{left}{a},\\infty)",
        f"{left}{a},{b}{right}\\cup({b + 2},{b + 3})", f"x+1\\in{left}{a},{b}{right}", f"x\\notin{left}{a},{b}{right}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _several(r: Random) -> GeneratedGold:
    values = r.sample(range(-50, 50), r.randrange(3, 6))
    values.append(values[0])  # a root that counts twice
    text = ", ".join(map(str, values))
    same = (", ".join(map(str, values[::-1])), " , ".join(map(str, sorted(values))), text.replace(",", ";"))
    other = (
        ", ".join(map(str, values[:-1])), ", ".join(map(str, values[1:-1])), text + f", {values[1]}", text + ", 99",
        ", ".join(map(str, [*values[:-1], values[1]])), f"({text})", f"[{text}]", text.replace(str(values[1]), "77", 1),
        " < ".join(map(str, values)), "+".join(f"({value})" for value in values), f"\\{{{text}\\}}",
    )  # fmt: skip
    return GeneratedGold(text, same, other)


def _set(r: Random) -> GeneratedGold:
    values = r.sample(range(-50, 50), r.randrange(3, 6))
    text = ", ".join(map(str, values))
    same = (
        f"\\{{{', '.join(map(str, values[::-1]))}\\}}",
        f"\\left\\{{{text}\\right\\}}",
        f"\\{{{text}, {values[0]}\\}}",
        text,
    )
    other = (
        f"\\{{{', '.join(map(str, values[1:]))}\\}}", f"\\{{{text}, 88\\}}", f"({text})", f"[{text}]",
        f"\\{{{', '.join(map(str, [-v - 60 for v in values]))}\\}}", str(len(values)) + "00",
        f"\\{{{text}\\}}\\cup\\{{77\\}}",
    )  # fmt: skip
    return GeneratedGold(f"\\{{{text}\\}}", same, other)


def _point(r: Random) -> GeneratedGold:
    a, b, c = r.sample(range(-30, 30), 3)
    gold = f"({a},{b},{c})"
    same = (
        f"\\left({a}, {b}, {c}\\right)",
        f"\\langle {a},{b},{c}\\rangle",
        f"( {a} , {b} , {c} )",
        f"({a}.0,{b},\\frac{{{2 * c}}}{{2}})",
    )
    other = (
        f"({b},{a},{c})", f"({a},{c},{b})", f"({a},{b})", f"({a},{b},{c},{c})", f"[{a},{b},{c}]",
        f"\\{{{a},{b},{c}\\}}",
        f"({a},{b},{c + 1})", f"({a},{b},{c}]", f"({a}+{b},{c})", f"({a},{b},{c}),({b},{a},{c})", f"({-a - 1},{b},{c})",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _matrix(r: Random) -> GeneratedGold:
    a, b, c, d = r.sample(range(-20, 20), 4)

    def matrix(*rows: tuple[int, int], name: str = "pmatrix") -> str:
        return f"\\begin{{{name}}}" + "\\\\".join(f"{x}&{y}" for x, y in rows) + f"\\end{{{name}}}"

    same = (
        matrix((a, b), (c, d), name="bmatrix"),
        f"\\left[\\begin{{array}}{{cc}}{a} & {b} \\\\ {c} & {d}\\end{{array}}\\right]",
    )
    other = (
        matrix((a, c), (b, d)), matrix((c, d), (a, b)), matrix((a, b), (c, d + 1)), matrix((a, b)),
        matrix((-a - 1, b), (c, d)),
        matrix((a, b), (c, d), name="vmatrix"), f"({a},{b},{c},{d})", matrix((a, b), (c, d)) + "^2",
        "2" + matrix((a, b), (c, d)),
        matrix((a, b), (c, d)) + "^{-1}", matrix((a, b), (c, d)) + "^T",
    )  # fmt: skip
    return GeneratedGold(matrix((a, b), (c, d)), same, other)


def _equation(r: Random) -> GeneratedGold:
    a, b, c = r.choice((2, 4, 6, 8)), r.choice((-7, -3, 3, 5)), r.randrange(1, 20)
    gold = f"{a}x{b:+}y={c}"
    same = (f"{2 * a}x{2 * b:+}y={2 * c}", f"{c}={a}x{b:+}y", f"{a}x{b:+}y-{c}=0", f"{-a}x{-b:+}y={-c}")
    other = (
        f"{a}x{-b:+}y={c}", f"{a}x{b:+}y={c + 1}", f"{a + 1}x{b:+}y={c}", f"{a}x^2{b:+}y={c}", f"{a}y{b:+}x={c}",
        f"{c}",
        f"{a}x{b:+}y={-c}", f"{a}x{b:+}y<{c}", f"{a}x{b:+}y\\ne {c}", f"{a}x{b:+}y", f"{a}x={c}", f"{a}x{b:+}z={c}",
        f"({a}x{b:+}y)^2={c * c}", "1=1", f"{c}={c}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _inequality(r: Random) -> GeneratedGold:
    a, b = sorted(r.sample(range(-20, 20), 2))
    gold = f"{a}<x\\le {b}"
    same = (f"{b}\\ge x>{a}", f"{a} < x \\leq {b}", f"({a},{b}]")
    other = (
        f"{a}\\le x\\le {b}", f"{a}<x<{b}", f"x\\le {b}", f"{a}<y\\le {b}", f"{a}<x\\le {b + 1}", f"{b}<x\\le {a}",
        f"[{a},{b}]",
        f"{a}<x", f"x>{a} \\text{{ or }} x\\le {b}", f"{-a - 1}<x\\le {b}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


_UNITS = (
    # unit, the same in other words, other units
    ("cm", ("centimeters", "centimetres"), ("m", "mm", "in", "cm^2", "km", "seconds", "kg")),
    ("W", ("watts",), ("kW", "mW", "MW", "J", "V")),
    ("nm", ("nanometers",), ("m", "mm", "km")),
    ("eV", ("electronvolts",), ("keV", "MeV", "GeV", "V")),
    ("km/h", ("kilometers per hour", "km per hour", "kmh"), ("m/s", "mph", "km", "h")),
    ("m/s^2", ("m s^-2", "meters per second squared"), ("m/s", "m", "m^2/s^2")),
    ("square inches", ("in^2", "inches squared", "sq. in"), ("inches", "square feet", "cubic inches")),
    ("hours", ("h", "hrs"), ("minutes", "seconds", "days")),
    ("dollars", ("\\$", "USD"), ("cents", "euros", "dollars per hour")),
    ("apples", ("red apples", "apples in total"), ("oranges", "boxes", "cm")),
    ("MB", ("megabytes",), ("GB", "KB", "Mb")),
    ("mol", ("moles",), ("mmol", "g", "mol^2")),
    ("^\\circ\\text{C}", ("degrees Celsius",), ("^\\circ\\text{F}", "K")),
)  # fmt: skip


def _unit(r: Random) -> GeneratedGold:
    n = r.randrange(2, 900)
    unit, words, others = r.choice(_UNITS)

    def write(unit: str) -> str:
        return f"{n}{unit}" if unit.startswith("^") else f"{n}\\text{{ {unit}}}"

    same = (f"{n}", *map(write, words), f"{n}.0")
    return GeneratedGold(
        write(unit), same, (*map(write, others), f"{n + 1}", write(unit).replace(str(n), str(n + 1)), f"{n}x")
    )


_WORDS = (
    *CHANGING_WORDS, "thirds", "tenths", "and a half", "point five", "minus one", "less", "hundred", "k",
    "root", "inverse", "to the fourth",
)  # fmt: skip


def _word(r: Random) -> GeneratedGold:
    n = r.randrange(2, 9_000)
    write = r.choice(("{}\\text{{ {}}}", "{} {}", "{}\\ \\mathrm{{{}}}", "{} \\mbox{{ {}}}"))
    same = (f"{n}\\text{{ ways}}", f"{n}\\text{{ units}}", f"{n} \\text{{ different pairs}}")
    words = [word for word in _WORDS if word != "i" or "text" in write]
    return GeneratedGold(f"{n}", same, tuple(write.format(n, word) for word in words))


def _word_in_gold(r: Random) -> GeneratedGold:
    n, word = r.randrange(2, 9_000), r.choice(_WORDS)
    gold = f"{n}\\text{{ {word}}}"
    return GeneratedGold(
        gold, (gold, f"{n} \\text{{{word}}}"), (f"{n + 1}\\text{{ {word}}}", f"{n}\\text{{ ways}}", f"{n}x")
    )


def _time(r: Random) -> GeneratedGold:
    h, m = r.randrange(1, 12), r.randrange(13, 59)
    gold = f"{h}:{m}\\text{{ p.m.}}"
    other = (
        f"{h}:{m}\\text{{ a.m.}}",
        f"{h}:{m + 1}\\text{{ p.m.}}",
        f"{h + 1}:{m}\\text{{ p.m.}}",
        f"{m}:{h}\\text{{ p.m.}}",
        f"{h}.{m}",
    )
    return GeneratedGold(gold, (f"{h}:{m} \\text{{ PM}}", f"{h}:{m}\\text{{ pm}}", f"{h}:{m}"), other)


def _percent(r: Random) -> GeneratedGold:
    n = r.randrange(2, 99)
    same = (f"{n}", f"{n}%", f"{n}\\text{{ percent}}", f"{n / 100}")
    other = (
        f"{n + 1}\\%",
        f"{n / 10:.2f}",
        f"{n}00",
        f"-{n}\\%",
        f"{n / 100:.4f}1",
        f"{n / 100}\\%",
        f"{n}\\text{{ per mille}}",
    )
    return GeneratedGold(f"{n}\\%", same, other)


def _no_percent(r: Random) -> GeneratedGold:
    n = r.randrange(2, 99)
    return GeneratedGold(f"{n}", (f"{n}.00",), (f"{n}\\%", f"{n}\\text{{ percent}}", f"{n / 100}", f"{n}00\\%"))


def _base(r: Random) -> GeneratedGold:
    digits, b = "".join(r.choice("1234") for _ in range(4)), r.randrange(5, 10)
    gold = f"{digits}_{{{b}}}"
    same = (f"{digits}_{b}", f"{digits}_{{{b}}}", f"{digits}_{{ {b} }}")
    other = (
        digits,
        f"{digits}_{{{b + 1}}}",
        f"{digits[::-1]}1_{{{b}}}",
        f"{digits}_{{-{b}}}",
        str(int(digits, b)),
        f"-{digits}_{b}",
    )
    return GeneratedGold(gold, same, other)


def _congruence(r: Random) -> GeneratedGold:
    m = r.randrange(5, 40)
    a = r.randrange(1, m)
    gold = f"x\\equiv {a}\\pmod{{{m}}}"
    same = (
        f"x \\equiv {a} \\pmod {{{m}}}",
        f"x\\equiv {a + m}\\pmod{{{m}}}",
        f"x\\equiv {a}\\ (\\mathrm{{mod}}\\ {m})",
    )
    other = (
        f"x\\equiv {a + 1}\\pmod{{{m}}}", f"x\\equiv {a}\\pmod{{{m + 1}}}", f"y\\equiv {a}\\pmod{{{m}}}", f"x={a}",
        f"x={m}",
        f"x\\not\\equiv {a}\\pmod{{{m}}}", f"x\\equiv {a}\\pmod{{{2 * m}}}", f"{m}",
    )  # fmt: skip
    return GeneratedGold(gold, same, other)


def _closed(r: Random) -> GeneratedGold:
    n = r.randrange(5, 12)
    k = r.randrange(2, n - 2)
    gold, value = r.choice(
        [(f"\\binom{{{n}}}{{{k}}}", math.comb(n, k)), (f"{n}!", math.factorial(n)), (f"{k}^{{{n}}}", k**n)]
    )
    same = (f"{value}", f"\\frac{{{2 * value}}}{{2}}", f"{value}.0")
    other = (
        f"{value + 1}",
        f"{gold}+1",
        f"{gold}!",
        f"-{gold}",
        f"({gold})^2",
        f"{value}0",
        f"{n}",
        f"\\sqrt{{{gold}}}+{n}",
    )
    return GeneratedGold(gold, same, other)


def _complex(r: Random) -> GeneratedGold:
    a, b = r.randrange(1, 30), r.randrange(2, 30)
    same = (f"{b}i+{a}", f"{a} + {b} i", f"{a}+i\\cdot {b}", f"{a}.0+{b}.0i")
    other = (
        f"{a}-{b}i",
        f"-{a}+{b}i",
        f"{a}+{b + 1}i",
        f"{b + a}i",
        f"{a}+{b}",
        f"{a}+{b}j",
        f"{a}{b}i",
        f"|{a}+{b}i|",
        f"{a}+{b}i^2",
    )
    return GeneratedGold(f"{a}+{b}i", same, other)


def _logarithm(r: Random) -> GeneratedGold:
    a, b = r.sample((2, 3, 5, 6, 7, 10, 11), 2)
    same = (f"\\frac{{\\ln {b}}}{{\\ln {a}}}", f"\\log_{{{a}}}({b})", f"\\frac12\\log_{a} {b * b}")
    other = (
        f"\\log_{{{b}}}{{{a}}}",
        f"\\log_{{{a}}}{{{b + 1}}}",
        f"\\ln {b}-\\ln {a}",
        f"{math.log(b, a):.12f}",
        f"\\log_{{{a}}}{{{b}}}+10^{{-60}}",
    )
    return GeneratedGold(f"\\log_{{{a}}}{{{b}}}", same, other)


def _angle(r: Random) -> GeneratedGold:
    k = r.choice((3, 4, 6, 5, 9))
    same = (f"{180 // k}^\\circ", f"\\pi/{k}", f"\\frac{{2\\pi}}{{{2 * k}}}", f"{180 // k}\\text{{ degrees}}")
    other = (
        f"\\frac{{\\pi}}{{{k}}}^\\circ",
        f"{180 // k}",
        f"\\frac{{\\pi}}{{{k + 1}}}",
        f"{180 // k + 1}^\\circ",
        f"\\frac{{1}}{{{k}}}",
    )
    return GeneratedGold(f"\\frac{{\\pi}}{{{k}}}", same, other)


def _numeric_equation(r: Random) -> GeneratedGold:
    k, b = r.randrange(2, 6), r.choice((2, 3, 5))
    gold = f"\\log_{{{b}}}({b**k})={k}"
    other = (
        "1=2",
        "1=1",
        f"\\log_{{{b}}}({b**k})={k + 1}",
        f"{k + 1}",
        f"{k + 1}={k + 1}",
        f"{k}={k + 1}",
        f"\\log_{{{b}}}({b**k})=-{k}",
        "0=0",
    )
    return GeneratedGold(gold, (f"{k}", f"{k}.0"), other)


def _words(r: Random) -> GeneratedGold:
    word = r.choice(("east", "yes", "even", "increasing", "Monday", "isosceles"))
    grade = r.choice("ABCD")
    if r.random() < 0.5:
        return GeneratedGold(
            f"\\text{{{grade}}}",
            (grade, f"\\textbf{{{grade}}}"),
            (f"{grade}-", f"\\text{{{grade}+}}", f"\\text{{{grade}*}}", "E"),
        )
    other = (f"\\text{{not {word}}}", f"\\text{{{word} or not}}", f"\\text{{{word[1:]}}}", f"\\text{{un{word}}}")
    return GeneratedGold(
        f"\\text{{{word}}}", (word, f"\\textbf{{{word.upper()}}}", f"\\text{{{word.title()}.}}"), other
    )


SHAPES: dict[str, Callable[[Random], GeneratedGold]] = {
    name.removeprefix("_"): shape
    for name, shape in list(globals().items())
    if name.startswith("_") and getattr(shape, "__annotations__", {}).get("return") is GeneratedGold
}
