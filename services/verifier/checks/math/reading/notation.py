"""One spelling for each character and command of LaTeX, plain text and Unicode, in time linear in the text."""

import re
import unicodedata

_GREEK_LETTERS = dict(
    zip(
        "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ",
        """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi
        omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega""".split(),  # noqa: SIM905
        strict=True,
    )
)
# Characters and commands, and the one spelling that replaces them.
_SPELLINGS = {
    "−": "-", "–": "-", "—": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "\\div ",
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≦": "\\le ", "≧": "\\ge ",
    "≠": "\\ne ", "≈": "\\approx ", "≡": "\\equiv ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\varnothing ",
    "∖": "\\setminus ", "∠": "\\angle ", "△": "\\triangle ", "°": "^{\\circ}", "±": "\\pm ", "∓": "\\mp ",
    "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∑": "\\sum ", "∏": "\\prod ",
    "∫": "\\int ", "→": "\\to ", "′": "'", "’": "'", "∣": "|", "‖": "\\|", "⁄": "/", "∕": "/", "…": "\\ldots ",
    "⟨": "\\langle ", "⟩": "\\rangle ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}", "％": "\\%", "、": ",", "。": ".", "\u200b": "", "\ufeff": "",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\dbinom": "\\binom", "\\tbinom": "\\binom",
    "\\leq": "\\le", "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge", "\\neq": "\\ne", "\\lt": "<",
    "\\gt": ">", "\\ast": "\\cdot", "\\bullet": "\\cdot", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[",
    "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")", "\\backslash": "\\setminus", "\\degree": "^{\\circ}",
    "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\mid": "|", "\\colon": ":", "\\minus": "-", "\\euro": "€",
    "\\Vert": "\\|", "\\lVert": "\\|", "\\rVert": "\\|",
    "\\textdollar": "\\$", "\\percent": "\\%", "\\thickapprox": "\\approx", "\\simeq": "\\approx", "\\sim": "\\approx",
    "\\emptyset": "\\varnothing", "\\imath": "i", "\\lor": "\\text{or}", "\\land": "\\text{and}",
    "\\vee": "\\text{or}", "\\wedge": "\\text{and}", "\\bar": "\\overline", "\\arctg": "\\arctan",
    "\\tg": "\\tan", "\\ctg": "\\cot", "\\dots": "\\ldots", "\\cdots": "\\ldots", "\\R": "\\mathbb{R}",
    "\\Z": "\\mathbb{Z}", "\\N": "\\mathbb{N}", "\\Q": "\\mathbb{Q}",
    **{letter: f"\\{name} " for letter, name in _GREEK_LETTERS.items()},
}  # fmt: skip
# Chinese words that join values, and units behind them; others stay text.
_CHINESE_JOINTS = dict.fromkeys(("或者", "或"), "or") | dict.fromkeys(("和", "与", "及", "以及", "且", "并且"), "and")
_CHINESE_UNITS = {
    "毫米": "mm", "厘米": "cm", "米": "m", "千米": "km", "公里": "km", "毫克": "mg", "克": "g", "千克": "kg",
    "公斤": "kg", "毫升": "ml", "升": "liters", "秒": "seconds", "分钟": "minutes", "小时": "hours", "时": "hours",
    "天": "days", "元": "yuan", "美元": "dollars", "欧元": "euros", "周": "weeks", "个月": "months", "年": "years",
    "度": "degrees",
    **{f"{power}{name}": f"{word} {unit}"
       for power, word in (("平方", "square"), ("立方", "cubic"))
       for name, unit in (("毫米", "mm"), ("厘米", "cm"), ("米", "m"), ("千米", "km"))},
    **dict.fromkeys("个只人次种条名本张棵辆件块", "units"),
}  # fmt: skip

_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ", "0123456789+-nk")
_SPELLED = re.compile(
    rf"""(?P<command>\\[a-zA-Z]+)
    |(?P<above>[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+) |(?P<below>[₀₁₂₃₄₅₆₇₈₉₊₋ₙₖ]+)
    |(?P<root>[√∛∜])(?P<under>[0-9]+(?:\.[0-9]+)?)?
    |(?P<joint>或者|以及|并且|[或和与及且]) |(?P<words>[{_CHINESE}]+?(?=[或和与及且]|[^{_CHINESE}]|\Z))
    |(?P<other>[^\x00-\x7f])""",
    re.VERBOSE,
)
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
# Unambiguous separators of thousands: 1{,}000  1,\!000  1\,000
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!\s*|\\[,:; ]|~)(?=[0-9]{3}(?![0-9]))")
_POWER = re.compile(r"(?<=[0-9A-Za-z)\]}])\*\*(?=[-+0-9A-Za-z({\\])")
_MARKUP = re.compile(r"(?P<kept>\\\\|\\\$)|\$|\\[()\[\],!;:> ]|~|\*\*")
# Layout that takes its arguments with it, and delimiters that are not printed: \color{red}, \phantom{2}, \left.
# An argument with deeper braces is left, and its command with it: such an answer is unreadable.
_ARGUMENT = r"\s*+\{(?:[^{}]|\{[^{}]*\})*\}"
_INVISIBLE = re.compile(
    rf"""\\(?:(?:text)?color(?:box)?|[hv]?phantom|[hv]space\*?|mspace|label|tag\*?|scalebox|raisebox)\s*+
        (?:\[[^\[\]]*\])?{_ARGUMENT}
    |\\(?:rule|fcolorbox|fontsize){_ARGUMENT}{_ARGUMENT}
    |\\(?:m?kern|[hm]skip)\s*+-?[0-9.]{{1,9}}\s*+(?:pt|em|ex|mu|[cm]m|in)
    |\\(?:left|right|[bB]igg?[lmr]?)\s*+\. | \\\Z""",
    re.VERBOSE,
)
_OLD_FONT = re.compile(r"\{\s*+\\(?:rm|bf|it|sf)\s++([a-zA-Z]+)\s*+\}")
_MODULO = re.compile(
    r"\\(?:text|textrm|mathrm|mbox|rm|operatorname)\s*+\{\s*+\(?\s*+mod(?:ulo)?\s*+(?:([0-9]+|[a-z])\s*+\)?\s*+)?\}"
)
_BOLD_SET = re.compile(r"\\mathbf\s*+\{([RZNQ])\}")
_UPRIGHT_FUNCTION = re.compile(
    r"\\(?:text|mathrm|operatorname)\{\s*+(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp)\s*+\}"
)
# 12th and 12^{\mathrm{th}}
_ORDINAL = re.compile(
    r"(?<![0-9.])([0-9]{1,9})(?:(st|nd|rd|th)\b|\^?\{?\\(?:text|mathrm|rm|textrm)\s?\{\s?(st|nd|rd|th)\s?\}\}?|\^\{(st|nd|rd|th)\})"
)
# What a string literal made of the commands \frac, \binom, \vec and \alpha.
_UNESCAPED = {ord("\f"): "\\f", ord("\b"): "\\b", ord("\v"): "\\v", ord("\a"): "\\a"}
_NESTED_TEXT = re.compile(r"\\text\{\s*+(\\text\{[^{}]*\})\s*+\}")  # a Chinese word in \\text, spelled out
_WIDE_SPACE = re.compile(r"(?:[,;]\s*+)?\\q{1,2}uad(?![a-zA-Z])")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_REPEATING = re.compile(
    r"""([0-9]{0,50})\.([0-9]{0,50})
    (?:\\overline\s*+(?:\{\s*+([0-9]{1,50})\s*+\}|([0-9]))|\(([0-9]{1,50})\)
    |\\dot\s*+(?:\{([0-9])\}|([0-9]))(?:([0-9]{0,50})\\dot\s*+(?:\{([0-9])\}|([0-9])))?)""",
    re.VERBOSE,
)


def normalize_notation(text: str) -> str:
    """`text` with one spelling for each character and command, without `$` and thin spaces."""
    if text.isascii() and text.isdigit():
        return text
    if not text.isprintable():
        text = text.translate(_UNESCAPED)
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)  # backslashes escaped twice
    text = _GROUPED.sub("", text)
    if "\\" in text:
        text = _OLD_FONT.sub(r"\\mathrm{\1}", _INVISIBLE.sub(" ", text))
        text = _read_upright(text) if "{" in text else text
        text = text.replace("\\!", "")
        text = _MODULO.sub(lambda found: f"\\pmod{{{found[1]}}}" if found[1] else "\\mod ", text)
    text = _separate_equations(text)
    text = _POWER.sub("^", _ORDINAL.sub(_cardinal, text))
    text = _MARKUP.sub(lambda found: found["kept"] or " ", text)
    text = _NESTED_TEXT.sub(r"\1", _SPELLED.sub(_spell, text))
    if "." in text and any(sign in text for sign in ("\\overline", "\\dot", "(")):
        text = _REPEATING.sub(_repeating, text)
    return text.strip()


def _read_upright(text: str) -> str:
    text = _BOLD_SET.sub(r"\\mathbb{\1}", text)
    return _UPRIGHT_FUNCTION.sub(r"\\\1 ", text)


def _separate_equations(text: str) -> str:
    r"""x = 1 \qquad y = 2 with a comma, if there is an equation on each side of each space."""
    parts = _WIDE_SPACE.split(text) if "\\q" in text and "\\begin" not in text else []
    return ", ".join(parts) if len(parts) > 1 and all("=" in part for part in parts) else text


def _cardinal(ordinal: re.Match[str]) -> str:
    """12 for 12th; a number with the ending of another stays."""
    number, *endings = ordinal.groups()
    due = "th" if number[-2:-1] == "1" else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number if due in endings else ordinal[0]


def _spell(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "command":
            return _SPELLINGS.get(found[0], found[0])
        case "above":
            return f"^{{{found[0].translate(_SUPERSCRIPTS)}}}"
        case "below":
            return f"_{{{found[0].translate(_SUBSCRIPTS)}}}"
        case "root" | "under":
            return f"{_ROOTS[found['root']]}{{{found['under']}}}" if found["under"] else f"{_ROOTS[found['root']]} "
        case "joint":
            return f"\\text{{ {_CHINESE_JOINTS[found[0]]} }}"
        case "words":
            return f"\\text{{{_CHINESE_UNITS.get(found[0], found[0])}}}"
        case _:
            return _SPELLINGS.get(found[0]) or _compatible(found[0])


def _compatible(text: str) -> str:
    """A command as it is; a full-width or typographic character as its plain one, ½ as a fraction."""
    if len(text) > 1:
        return text
    plain = unicodedata.normalize("NFKC", text)
    if "⁄" in plain and all(plain.partition("⁄")[::2]):
        over, _, under = plain.partition("⁄")
        return f"\\frac{{{over}}}{{{under}}}"
    is_plain = len(plain) == 1 and plain.isascii() and unicodedata.category(text) != "No"
    return plain if is_plain else text


def _repeating(decimal: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, fixed, *marked = decimal.groups()
    period = "".join(digits for digits in marked if digits)
    over = int((whole or "0") + fixed + period) - int((whole or "0") + fixed)
    return f"\\frac{{{over}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"
