r"""One-edit mutants of answers: texts that say something else than the text they come from.

An edit changes a digit, a sign, an operator, a letter, a relation, a bracket, a unit, the order or number of values,
or adds a factor, a term or a word. Some edits keep the value by chance (1^2 and 1^3): who needs certainty must have an
oracle; on real answers these are fewer than one in a thousand.
"""

import re
from collections.abc import Iterator

_PIECE = re.compile(
    r"(?P<kept>\\(?:begin|end|mathbb|mathcal|operatorname|left|right)\s*(?:\{[^{}]*\}\s*){0,2}|\\[,;:!> ]|\{,\})"
    r"|(?P<text>\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\})"
    r"|(?P<command>\\[a-zA-Z]+)|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<word>[a-zA-Z]{4,})|(?P<letter>[a-zA-Z])"
    r"|(?P<sign>[-+<>=!])"
)
_SWAPPED = {
    "+": "-", "-": "+", "<": ">", ">": "<", "\\le": "<", "\\leq": "<", "\\ge": ">", "\\geq": ">",
    "\\sin": "\\cos", "\\cos": "\\sin", "\\tan": "\\cot", "\\cup": "\\cap", "\\cap": "\\cup",
    "\\lfloor": "\\lceil", "\\rfloor": "\\rceil", "\\pi": "e", "\\alpha": "\\beta", "\\theta": "\\alpha",
    "\\sqrt": "\\sqrt[3]", "\\log": "\\ln", "\\ln": "\\log_2", "\\arcsin": "\\arccos", "\\infty": "9",
    "\\in": "\\notin", "\\pm": "+", "\\cdot": "+", "\\times": "+",
}  # fmt: skip
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# Behind a number, each of these says another value, or none.
CHANGING_WORDS = (
    "factorial", "squared", "cubed", "fifths", "halves", "hundredths", "thousandths", "quarters", "dozens", "choose 2",
    "in binary", "in hexadecimal", "base 7", "is wrong", "or so", "or more", "at most", "i", "times 3",
    "more than 4", "doubled", "recurring", "rd root", "prime", "not", "or 6", "lakh", "billion", "per mille",
)  # fmt: skip


def mutate(text: str) -> Iterator[tuple[str, str]]:
    """(kind of edit, mutant) for each edit of the text of an answer."""
    yield from _edit_pieces(text)
    yield from _edit_whole(text)
    yield from _edit_values(text)


def _edit_pieces(text: str) -> Iterator[tuple[str, str]]:
    for found in _PIECE.finditer(text):
        before, piece, after = text[: found.start()], found[0], text[found.end() :]
        match found.lastgroup:
            case "number":
                last = "1" if piece[-1] == "0" else str(9 - int(piece[-1])) if piece[-1] != "5" else "6"
                yield "digit", f"{before}{piece[:-1]}{last}{after}"
                yield "digit more", f"{before}{piece}7{after}"
                if len(piece) > 1 and piece.isdigit() and piece[0] != "0":
                    yield "digit less", f"{before}{piece[1:]}{after}"
                    yield "hidden digit", f"{before}{piece[0]}\\phantom{{{piece[1:]}}}{after}"
                if after[:1] not in ("^", "_", "}") and before[-1:] not in ("^", "_", "{", "."):
                    yield "extra term", f"{before}({piece}+10^{{-30}}){after}"
            case "letter":
                if piece not in "de" and not (before.endswith("\\") or before[-1:].isalpha() or after[:1].isalpha()):
                    yield "letter", f"{before}{'q' if piece != 'q' else 'p'}{after}"
            case "sign" | "command" if piece in _SWAPPED:
                other = _SWAPPED[piece]
                space = " " if other[-1:].isalpha() and after[:1].isalpha() else ""
                yield f"sign {piece}", f"{before}{other}{space}{after}"
            case "sign" if piece == "!":
                yield "factorial", f"{before}{after}"
                yield "factorial", f"{before}!!{after}"
            case "text" | "word":
                yield "word", f"{before}{piece[:-1]}x{piece[-1:]}{after}"
            case _:
                pass


def _edit_whole(text: str) -> Iterator[tuple[str, str]]:
    yield "extra factor", f"2({text})"
    yield "extra term", f"{text}+1"
    yield "extra term", f"1+{text}"
    if re.search("[1-9a-zA-Z]", text):
        yield "sign", f"-({text})"
    yield "alternative", f"{text} \\text{{ or }} 777"
    yield "another value", f"{text}, 777"
    if _PLAIN.fullmatch(text) and abs(float(text)) > 3:  # 2! is 2
        for word in CHANGING_WORDS:
            yield "word behind", f"{text}\\text{{ {word}}}"
        for sign in ("!", "!!", "^2", "\\%", "i", "x", "_7", "'", "\\sqrt{2}", "\\pi", "e", "^{\\circ}C^2", "..."):
            yield "sign behind", f"{text}{sign}"
    if text[:1] in "([" and text[-1:] in ")]" and "," in text:
        swap = {"(": "[", "[": "(", ")": "]", "]": ")"}
        yield "bracket", swap[text[0]] + text[1:]
        yield "bracket", text[:-1] + swap[text[-1]]


def _edit_values(text: str) -> Iterator[tuple[str, str]]:
    """Values left out, repeated, or in another order where the order counts."""
    opening, inside, closing = _without_brackets(text)
    values = _split(inside)
    if len(values) < 2:
        return
    for at in range(len(values)):
        yield "one value less", opening + ", ".join(values[:at] + values[at + 1 :]) + closing
    if opening != "\\{" and all(_PLAIN.fullmatch(value) for value in values):
        yield "one value twice", opening + ", ".join([*values, values[0]]) + closing
    if opening in ("(", "\\left(", "[") and values[0] != values[1]:
        yield "order", opening + ", ".join([values[1], values[0], *values[2:]]) + closing


def _without_brackets(text: str) -> tuple[str, str, str]:
    for opening, closing in (("\\left(", "\\right)"), ("\\{", "\\}"), ("(", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing) and _is_balanced(text[len(opening) : -len(closing)]):
            return opening, text[len(opening) : -len(closing)], closing
    return "", text, ""


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0 and not (text[at + 1 : at + 2].isdigit() and text[at - 1 : at].isdigit()):
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]
