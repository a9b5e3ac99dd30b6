r"""LaTeX and plain notation as tokens: one spelling for what is spelled in many ways, in time linear in the text."""

import re
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()  # 12, 3.5
    COMMAND = auto()  # \frac, with its backslash
    WORD = auto()  # letters outside a command
    TEXT = auto()  # the contents of \text{…}
    SIGN = auto()  # any other character, or an escaped one such as \{
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `spaced` when white space stood before it."""

    kind: Kind
    text: str
    spaced: bool


# One character, or a command, that is another way to write something.
_SPELLINGS = {
    "−": "-", "–": "-", "—": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "\\div ",
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∪": "\\cup ",
    "∩": "\\cap ", "∈": "\\in ", "°": "^{\\circ}", "²": "^{2}", "³": "^{3}", "½": "\\frac{1}{2}", "±": "\\pm ",
    "√": "\\sqrt ", "％": "\\%", "，": ",", "（": "(", "）": ")", "：": ":", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ",    "⟨": "\\langle ", "⟩": "\\rangle ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "ℝ": "\\mathbb{R}",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\dbinom": "\\binom", "\\tbinom": "\\binom",
    "\\leq": "\\le", "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge", "\\neq": "\\ne", "\\lt": "<",
    "\\gt": ">", "\\ast": "\\cdot", "\\bullet": "\\cdot", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[",
    "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")", "\\backslash": "\\setminus", "\\degree": "^{\\circ}",
    "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\mid": "|", "\\colon": ":", "\\minus": "-", "\\euro": "€",
    "\\textdollar": "\\$", "\\percent": "\\%", "\\thickapprox": "\\approx", "\\simeq": "\\approx", "\\sim": "\\approx",
    "\\emptyset": "\\varnothing", "\\ln": "\\ln", "\\imath": "i", "\\lor": "\\text{or}", "\\land": "\\text{and}",
    "\\vee": "\\text{or}", "\\wedge": "\\text{and}",
}  # fmt: skip
# Layout that means nothing.
_LAYOUT = frozenset(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \middle \displaystyle \textstyle \limits \nolimits
    \rm \bf \it \cal \quad \qquad \hspace \phantom \thinspace \medspace \hfill \mathstrut""".split()  # noqa: SIM905
)
_TEXT_COMMANDS = frozenset(
    r"\text \textbf \textit \textrm \textnormal \textsf \texttt \mbox \hbox".split()  # noqa: SIM905
)
_FONT_COMMANDS = frozenset(
    r"""\mathrm \mathbf \mathit \mathsf \mathcal \boldsymbol \bm \operatorname \vec \overrightarrow
    \hat""".split()  # noqa: SIM905
)

_SPELLED = re.compile(r"\\[a-zA-Z]+|[^\x00-\x7f]")
# Separators of thousands that cannot be anything else: 1{,}000  1,\!000  1\,000
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!\s*|\\[,:; ]|~)(?=[0-9]{3}(?![0-9]))")
_MARKUP = re.compile(r"(?<!\\)\$|\\[()\[\]]|\\[,!;:> ]|~|\*\*")
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<command>\\[a-zA-Z]+)|(?P<word>[a-zA-Z]+)|(?P<sign>\\.|.)",
    re.DOTALL,
)
_BRACED = re.compile(r"\s*\{([^{}]*)\}")


def spelled(text: str) -> str:
    """`text` in one spelling of characters and commands, without mathematics delimiters and thin spaces."""
    text = _GROUPED.sub("", text)
    text = _MARKUP.sub(" ", text)
    return _SPELLED.sub(lambda found: _SPELLINGS.get(found[0], found[0]), text).strip()


def tokens_of(text: str) -> list[Token]:
    """The tokens of spelled text, and END."""
    tokens: list[Token] = []
    spaced = False
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            break
        position = found.end()
        kind, content = found.lastgroup, found[0]
        if kind == "space" or content in _LAYOUT or content in _FONT_COMMANDS:
            spaced = spaced or kind == "space"
            continue
        if content in _TEXT_COMMANDS:
            braced = _BRACED.match(text, position)
            if braced is not None:
                tokens.append(Token(Kind.TEXT, " ".join(braced[1].split()), spaced))
                position = braced.end()
            continue
        tokens.append(Token(_KIND_OF_GROUP[str(kind)], content, spaced))
        spaced = False
    tokens.append(Token(Kind.END, "", spaced))
    return tokens


_KIND_OF_GROUP = {"number": Kind.NUMBER, "command": Kind.COMMAND, "word": Kind.WORD, "sign": Kind.SIGN}
