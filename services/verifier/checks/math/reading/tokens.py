r"""Turns normalized notation into tokens, in time linear in the text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from services.verifier.checks.math.reading.units.phrase import is_phrase, is_upright_unit


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

# Layout without meaning.
_LAYOUT = frozenset(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr \middle
    \displaystyle \textstyle \scriptstyle \scriptscriptstyle \limits \nolimits \tiny \scriptsize \footnotesize \small
    \normalsize \large \Large \LARGE \huge \Huge \rm \bf \it \sf \tt \cal \normalfont \bfseries \itshape \quad
    \qquad \enspace \thinspace \medspace \thickspace \hfill \mathstrut \strut \mathbin \mathrel \mathord \mathopen
    \mathclose \underline \boldmath \unboldmath""".split()  # noqa: SIM905
)
_TEXT_COMMANDS = frozenset(
    r"\text \textbf \textit \textrm \textnormal \textsf \texttt \mbox \hbox".split()  # noqa: SIM905
)
_FONT_COMMANDS = frozenset(
    r"""\mathrm \mathbf \mathit \mathsf \mathcal \boldsymbol \bm \operatorname \vec \overrightarrow
    \hat""".split()  # noqa: SIM905
)
# Over a letter they make its name; over a number they would be lost.
_ACCENTS = frozenset({"\\vec", "\\overrightarrow", "\\hat"})
_NUMBER_BELOW = re.compile(r"[\s{]*+[0-9]")

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<command>\\[a-zA-Z]+)|(?P<word>[a-zA-Z]+)|(?P<sign>\\.|.)",
    re.DOTALL,
)
_BRACED = re.compile(r"\s*\{([^{}]*)\}")
# A sign at the end of a word or beside a single letter says something: A-, A*, n!, x'.
_IGNORED_IN_WORDS = re.compile(
    r"""[\s"(){}\[\],;?$\\]|\.(?![0-9])|(?<=[^\W\d_])[-_'](?=[^\W\d_])|(?<=[^\W\d_]{2})!|\A'|(?<=[^\W\d_]{2})'\Z"""
)
_INDEXED = frozenset({"\\sum", "\\prod", "\\bigcup", "\\bigcap"})
_MODULUS = frozenset({"mod", "modulo", "\\mod", "\\bmod", "\\pmod"})
_LETTERS = re.compile(r"[a-z']+")
_DENIALS = frozenset(
    """not no never neither nor isn't isnt aren't doesn't cannot can't wrong false incorrect or if unless but maybe
    perhaps except""".split()  # noqa: SIM905
)
_ARTICLES = re.compile(r"\A(?:the|an?) ")


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
            is_text = content in _TEXT_COMMANDS or not words[1].strip().isalpha() or _is_unit_behind(tokens, words[1])
            if content in _TEXT_COMMANDS and (quantity := _quantity(words[1])):
                tokens.append(Token(TokenKind.NUMBER, quantity[0], after_space))
                tokens.append(Token(TokenKind.TEXT, quantity[1], True))
            else:
                tokens.append(_words(is_text, words[1], after_space))
        elif kind == "space" or content in _LAYOUT or content in _TEXT_COMMANDS or _is_font(content, text, position):
            after_space = after_space or kind == "space"
            continue
        else:
            tokens.append(Token(_KIND_OF_GROUP[kind], content, after_space))
        after_space = False
    tokens.append(Token(TokenKind.END, "", after_space))
    return tokens


def _is_font(command: str, text: str, position: int) -> bool:
    return command in _FONT_COMMANDS and not (command in _ACCENTS and _NUMBER_BELOW.match(text, position))


def _is_unit_behind(tokens: list[Token], word: str) -> bool:
    """Whether upright letters are a unit behind a value: 5\\mathrm{MB}."""
    return bool(tokens) and (tokens[-1].kind is TokenKind.NUMBER or tokens[-1].text in "})") and is_upright_unit(word)


def _quantity(words: str) -> tuple[str, str] | None:
    r"""The number and the unit of \text{7 apples}; None of other words."""
    found = _NUMBER_AND_UNIT.fullmatch(words)
    return (found[1], " ".join(found[2].split())) if found and is_phrase(found[2]) else None


def _words(is_text: bool, words: str, after_space: bool) -> Token:
    words = " ".join(words.split())
    if is_text and (number := _PLAIN_NUMBER.fullmatch(words)):
        return Token(TokenKind.NUMBER, number[1], after_space)
    return Token(TokenKind.TEXT if is_text else TokenKind.WORD, words, after_space)


_KIND_OF_GROUP = {kind.name.lower(): kind for kind in TokenKind}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s+([a-zA-Z].*)", re.DOTALL)
_PLAIN_NUMBER = re.compile(r"\(?([0-9]+(?:\.[0-9]+)?)\)?")
# \mathrm{cm}, \mathrm{m/s}, \mathrm{p.m.}: words or units in upright letters
_UPRIGHT = re.compile(r"\s*[a-zA-Z]+(?:[/ .^]+[a-zA-Z0-9]+)*\.?\s*")


def spell_out(tokens: Sequence[Token]) -> list[tuple[TokenKind, str]]:
    r"""The tokens without the braces of x^{2}, and with sums' indices under names of their own: \\sum_{k=1} k."""
    found: list[tuple[TokenKind, str]] = []
    indices: dict[str, str] = {}
    for at, token in enumerate(tokens):
        before, after = [t.text for t in tokens[max(at - 3, 0) : at]], [t.text for t in tokens[at + 1 : at + 3]]
        if (token.text == "{" and before[-1:] and before[-1] in "^_" and after[1:] == ["}"]) or (
            token.text == "}" and before[1:2] == ["{"] and before[0] in "^_"
        ):
            continue
        if before[-2:] == ["_", "{"] and before[0] in _INDEXED and after[:1] == ["="]:
            indices.setdefault(token.text, f"index {len(indices)}")
        letters = token.text if token.kind is TokenKind.WORD and token.text not in FUNCTION_WORDS else [token.text]
        found.extend((token.kind, letter) for letter in letters)
    return [(kind, indices.get(text, text)) for kind, text in found]


def is_joint(token: Token) -> bool:
    """Whether it is the word `and` or `or`."""
    is_word = token.kind in (TokenKind.TEXT, TokenKind.WORD)
    return is_word and token.text.strip(" ,;").casefold() in JOINTS


def is_modulus(token: Token) -> bool:
    r"""Whether a modulus follows: \\pmod, \\bmod, or the word mod."""
    return token.text.strip(" (").casefold() in _MODULUS


def is_denied(words: str) -> bool:
    """Whether words deny or hedge what they stand before: "x is not", "5 or"."""
    return not _DENIALS.isdisjoint(_LETTERS.findall(words.casefold()))


def normalize_words(words: str) -> str:
    """Only the letters and digits: case, spaces, punctuation and a leading article do not count."""
    return _IGNORED_IN_WORDS.sub("", _ARTICLES.sub("", words.strip().casefold()))
