"""The words after a value: which of them are units or counted things.

What stands behind a number must be known word by word; anything else may change the value: "squared", "choose 2".
"""

import re
from itertools import pairwise

from services.verifier.checks.math.reading.forms import UnreadableAnswer
from services.verifier.checks.math.reading.units.nouns import ADJECTIVES, FILLERS, is_counted, singular
from services.verifier.checks.math.reading.units.table import CASELESS, SYMBOLS, WORDS

_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_PIECE = re.compile(
    r"(?P<exponent>\^\s{0,9}\{?\s{0,9}-?[0-9]+\s{0,9}\}?|(?<=[A-Za-z])-?[0-9]+)|(?P<over>/|\bper\b)"
    r"|(?P<word>[ap]\.?m\b\.?|°\s?[CF]\b|[A-Za-zµμΩÅ]+|[\u4e00-\u9fff]+|°|\\?[%$]|[€£¥₹¢])|(?P<skipped>[\s.,()·~-])|(?P<other>.)",
    re.DOTALL | re.IGNORECASE,
)
_MAX_PIECES = 16
_MAX_CHARACTERS = 200
_DEGREES = re.compile(r"(?:\^\s{0,9})?(?:\{\s{0,9}\\circ\s{0,9}\}|\\circ)\s{0,9}")
# Words that may stand behind a value alone: 10 in total.
_TOTALS = frozenset({"all", "altogether", "overall", "total"})
# Short units that, bare behind a number, are no product of variables.
_BARE_SYMBOLS = frozenset({"mm", "cm", "km", "kg", "mg", "ft", "yd", "mi", "lb", "oz", "ml", "hr", "in", "mph", "men"})
_UPRIGHT_LETTERS = frozenset("mgshLJNWVK")
_AFTER_DEGREES = {"C": "°C", "F": "°F", "°C": "°C", "°F": "°F"}


def is_unit(word: str) -> bool:
    """Whether a word outside a text command is a unit, not a product of variables."""
    return word in _BARE_SYMBOLS or (len(word) > 2 and not word.isupper() and word.casefold() in WORDS)


def is_upright_unit(word: str) -> bool:
    """Whether a word in upright letters behind a number is a unit: 5\\mathrm{kW}; but 2\\mathrm{A} may be a matrix."""
    return word in _UPRIGHT_LETTERS or (len(word) > 1 and _unit_name(word) is not None)


def is_phrase(text: str) -> bool:
    """Whether words are a unit or counted things that may stand behind a value."""
    try:
        return bool(scale_and_unit(text)[1])
    except UnreadableAnswer:
        return False


def scale_and_unit(text: str) -> tuple[int, str]:
    """(factor, canonical unit) of the words after a value: "million dollars per day" is (1000000, "$ day^-1").

    The unit of things that are only counted begins with #: "12 red apples" has "#apple". Raises UnreadableAnswer for
    words that are neither: "or 5", "base two", "squared".
    """
    scale, powers = 1, _UnitBuilder()
    for word, after in pairwise([*_pieces(text), ("end", "")]):
        kind, content = word
        if kind == "word" and content.casefold() in _SCALES and powers.is_empty:
            scale *= _SCALES[content.casefold()]
        else:
            powers.add(kind, content, after)
    return scale, powers.canonical(is_scaled=scale > 1)


def _pieces(text: str) -> list[tuple[str, str]]:
    if len(text) <= _MAX_CHARACTERS:
        found = [(str(piece.lastgroup), piece[0]) for piece in _PIECE.finditer(_DEGREES.sub("°", text))]
        kept = [piece for piece in found if piece[0] != "skipped"]
        if len(kept) <= _MAX_PIECES:
            return kept
    raise UnreadableAnswer(f"{text[:40]!r}… behind a value is too long for a unit")


class _UnitBuilder:
    """Collects the powers of units, and the things counted, from the pieces of a phrase."""

    def __init__(self) -> None:
        self._exponents: dict[str, int] = {}
        self._last = ""
        self._pending = 1  # the power that `square` and `cubic` give to the next unit
        self._sign = 1
        self._is_total = False
        self.is_empty = True

    def add(self, kind: str, content: str, after: tuple[str, str]) -> None:
        if kind == "over":
            self._sign, self.is_empty = -1, False
        elif kind == "exponent" and self._last:
            self._raise(int(content.strip("^{} \t\n")))
        elif kind == "word":
            self._add_word(content, after)
        else:
            raise UnreadableAnswer(f"{content!r} behind a value is no unit")

    def _add_word(self, word: str, after: tuple[str, str]) -> None:
        lower = word.casefold()
        if lower in _POWERS:
            if self._last and lower.endswith("ed"):
                self._raise(_POWERS[lower])
            elif not lower.endswith("ed") and after[0] == "word":
                self._pending = _POWERS[lower]
            else:
                raise UnreadableAnswer(f"{word!r} behind a value is no unit")
            return
        name = None if _is_filler(lower, after) else _unit_name(word)
        if name is not None:
            self._count(name, self._pending)
        elif is_counted(lower):
            self._count("#" + singular(lower), 1)
        elif lower not in ADJECTIVES and lower not in FILLERS:
            raise UnreadableAnswer(f"{word!r} behind a value is no unit")
        self._is_total = self._is_total or lower in _TOTALS

    def _count(self, name: str, exponent: int) -> None:
        if name in _AFTER_DEGREES and self._exponents.pop("°", 0):
            name = _AFTER_DEGREES[name]  # degrees Celsius, 20 °C
        self._exponents[name] = self._exponents.get(name, 0) + self._sign * exponent
        self._last, self._pending, self.is_empty = name, 1, False

    def _raise(self, exponent: int) -> None:
        """The last unit to a power."""
        if abs(exponent) > 9 or exponent == 0:
            raise UnreadableAnswer(f"a unit to the power of {exponent}")
        self._exponents[self._last] += self._sign * (exponent - 1)
        self._last = ""

    def canonical(self, *, is_scaled: bool) -> str:
        powers = [(name, exponent) for name, exponent in sorted(self._exponents.items()) if exponent]
        if not powers and not is_scaled and not self._is_total:
            raise UnreadableAnswer("words behind a value that name no unit")
        return " ".join(name if exponent == 1 else f"{name}^{exponent}" for name, exponent in powers)


def _is_filler(word: str, after: tuple[str, str]) -> bool:
    """`in` is an inch unless words follow it, other than its power: "in total", but "in" and "in squared"."""
    return word in FILLERS and (word != "in" or (after[0] == "word" and after[1].casefold() not in _POWERS))


def _unit_name(word: str) -> str | None:
    word = word.replace("μ", "µ").replace(" ", "")
    lower = word.casefold()
    if word in SYMBOLS:
        return word
    if (name := WORDS.get(lower)) is not None:
        return name
    same = CASELESS.get(lower, frozenset())
    name = next(iter(same), "")
    is_mega = word[0] == "M" and name[:1] == "m" and not word.isupper()  # Mg is no mg
    return name if len(same) == 1 and len(word) > 1 and not is_mega else None
