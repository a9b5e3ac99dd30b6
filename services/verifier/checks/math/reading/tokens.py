r"""Turns LaTeX and plain notation into tokens of one spelling, in time linear in the text."""

import re
from dataclasses import dataclass
from enum import Enum, auto


class TokenKind(Enum):
    """What a token is."""

    NUMBER = auto()  # 12, 3.5
    COMMAND = auto()  # \frac, with its backslash
    WORD = auto()  # letters outside a command
    TEXT = auto()  # the contents of \text{…}
    SIGN = auto()  # any other character, or an escaped one such as \{
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `after_space` if white space stands before it."""

    kind: TokenKind
    text: str
    after_space: bool


GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega pi infty varnothing ell
    hbar angle triangle""".split()  # noqa: SIM905
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp".split()  # noqa: SIM905
)
NAMED_WORDS = {"sqrt": "\\sqrt", "pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "oo": "\\infty"}
# Words that are part of expressions; other long words are text.
FUNCTION_WORDS = FUNCTIONS | NAMED_WORDS.keys()
JOINTS = frozenset({"and", "or"})

# Characters and commands, and the one spelling that replaces them.
_SPELLINGS = {
    "−": "-", "–": "-", "—": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "\\div ",
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∪": "\\cup ",
    "∩": "\\cap ", "∈": "\\in ", "°": "^{\\circ}", "²": "^{2}", "³": "^{3}", "½": "\\frac{1}{2}", "±": "\\pm ",
    "√": "\\sqrt ", "％": "\\%", "，": ",", "（": "(", "）": ")", "：": ":", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ",
    "⟨": "\\langle ", "⟩": "\\rangle ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "ℝ": "\\mathbb{R}",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\dbinom": "\\binom", "\\tbinom": "\\binom",
    "\\leq": "\\le", "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge", "\\neq": "\\ne", "\\lt": "<",
    "\\gt": ">", "\\ast": "\\cdot", "\\bullet": "\\cdot", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[",
    "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")", "\\backslash": "\\setminus", "\\degree": "^{\\circ}",
    "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\mid": "|", "\\colon": ":", "\\minus": "-", "\\euro": "€",
    "\\textdollar": "\\$", "\\percent": "\\%", "\\thickapprox": "\\approx", "\\simeq": "\\approx", "\\sim": "\\approx",
    "\\emptyset": "\\varnothing", "\\ln": "\\ln", "\\imath": "i", "\\lor": "\\text{or}", "\\land": "\\text{and}",
    "\\vee": "\\text{or}", "\\wedge": "\\text{and}",
}  # fmt: skip
# Layout without meaning.
_LAYOUT = frozenset(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \middle \displaystyle \textstyle \limits \nolimits
    \rm \bf \it \cal \quad \qquad \hspace \phantom \thinspace \medspace \hfill \mathstrut
    \underline \boldmath""".split()  # noqa: SIM905
)
_TEXT_COMMANDS = frozenset(
    r"\text \textbf \textit \textrm \textnormal \textsf \texttt \mbox \hbox".split()  # noqa: SIM905
)
_FONT_COMMANDS = frozenset(
    r"""\mathrm \mathbf \mathit \mathsf \mathcal \boldsymbol \bm \operatorname \vec \overrightarrow
    \hat""".split()  # noqa: SIM905
)

_SPELLED = re.compile(r"\\[a-zA-Z]+|[^\x00-\x7f]")
# Unambiguous separators of thousands: 1{,}000  1,\!000  1\,000
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!\s*|\\[,:; ]|~)(?=[0-9]{3}(?![0-9]))")
_MARKUP = re.compile(r"(?P<kept>\\\\|\\\$)|\$|\\[()\[\],!;:> ]|~|\*\*")
_COLOR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}|\\\Z")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_REPEATING = re.compile(r"([0-9]{0,50})\.([0-9]{0,50})\\overline\s*\{\s*([0-9]{1,50})\s*\}")
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<command>\\[a-zA-Z]+)|(?P<word>[a-zA-Z]+)|(?P<sign>\\.|.)",
    re.DOTALL,
)
_BRACED = re.compile(r"\s*\{([^{}]*)\}")
_IGNORED_IN_WORDS = re.compile(r"""[\s"'(){}\[\],;!?$*_\\-]|\.(?![0-9])""")
_ARTICLES = re.compile(r"\A(?:the|an?) ")


def normalize_notation(text: str) -> str:
    """`text` with one spelling for each character and command, without `$` and thin spaces."""
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)  # backslashes escaped twice
    text = _GROUPED.sub("", _COLOR.sub("", text))
    text = _MARKUP.sub(lambda found: found["kept"] or " ", text)
    text = _SPELLED.sub(lambda found: _SPELLINGS.get(found[0], found[0]), text)
    if "\\overline" in text:
        text = _REPEATING.sub(_repeating, text)
    return text.strip()


def _repeating(decimal: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, fixed, period = decimal.groups()
    over = int((whole or "0") + fixed + period) - int((whole or "0") + fixed)
    return f"\\frac{{{over}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def tokenize(text: str) -> list[Token]:
    """The tokens of normalized text, and END."""
    tokens: list[Token] = []
    after_space = False
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        assert found is not None  # its last alternative is any character
        position = found.end()
        kind, content = str(found.lastgroup), found[0]
        words = _BRACED.match(text, position) if content in _TEXT_COMMANDS or content in _FONT_COMMANDS else None
        if words is not None and (content in _TEXT_COMMANDS or _UPRIGHT.fullmatch(words[1])):
            position = words.end()
            tokens.append(_words(content in _TEXT_COMMANDS or not words[1].isalpha(), words[1], after_space))
        elif kind == "space" or content in _LAYOUT or content in _TEXT_COMMANDS or content in _FONT_COMMANDS:
            after_space = after_space or kind == "space"
            continue
        else:
            tokens.append(Token(_KIND_OF_GROUP[kind], content, after_space))
        after_space = False
    tokens.append(Token(TokenKind.END, "", after_space))
    return tokens


def _words(is_text: bool, words: str, after_space: bool) -> Token:
    words = " ".join(words.split())
    if is_text and (number := _PLAIN_NUMBER.fullmatch(words)):
        return Token(TokenKind.NUMBER, number[1], after_space)
    return Token(TokenKind.TEXT if is_text else TokenKind.WORD, words, after_space)


_KIND_OF_GROUP = {kind.name.lower(): kind for kind in TokenKind}
_PLAIN_NUMBER = re.compile(r"\(?([0-9]+(?:\.[0-9]+)?)\)?")
# \mathrm{cm}, \mathrm{m/s}, \mathrm{p.m.}: words or units in upright letters
_UPRIGHT = re.compile(r"\s*[a-zA-Z]+(?:[/ .^]+[a-zA-Z0-9]+)*\.?\s*")


def normalize_words(words: str) -> str:
    """Only the letters and digits: case, spaces, punctuation and a leading article do not count."""
    return _IGNORED_IN_WORDS.sub("", _ARTICLES.sub("", words.strip().casefold()))
