"""Units after a value: which words are units, and which are synonyms."""

import re
from itertools import pairwise

from services.verifier.checks.math.reading.forms import UnreadableAnswer

_ALIASES: dict[str, str] = {
    name: canonical
    for canonical, names in {
        "%": "% \\% percent percentage pct",
        "°": "degree degrees deg ° \\circ",
        "$": "$ \\$ dollar dollars usd",
        "¢": "cent cents ¢",
        "€": "€ euro euros eur",
        "£": "£ pound-sterling",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres cms",
        "m": "meter meters metre metres",
        "km": "km kilometer kilometers kilometre kilometres kms",
        "in": "inch inches in",
        "ft": "ft foot feet",
        "yd": "yd yard yards",
        "mi": "mile miles mi",
        "mg": "mg milligram milligrams",
        "g": "gram grams",
        "kg": "kg kilogram kilograms kgs",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "liter liters litre litres",
        "gal": "gallon gallons gal",
        "s": "second seconds sec secs",
        "min": "minute minutes min mins",
        "h": "hour hours hr hrs",
        "day": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "year years yr yrs",
        "mph": "mph",
        "rad": "rad radian radians",
        "unit": "unit units",
    }.items()
    for name in names.split()
}
_UNITS = frozenset(_ALIASES.values())
_WORDS = re.compile(r"[a-z]+|%|\\%|\\?\$|°|€|£|¢|[0-9]+")
_POWERS = {"square": "2", "squared": "2", "sq": "2", "cubic": "3", "cubed": "3"}
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words that change a value, or make it several.
_NOT_UNITS = frozenset(
    """or and not maybe perhaps possibly either neither to from minus plus times over base mod modulo half thirds
    quarter point less more than least most between except unless if when where zero one two three four five six
    seven eight nine ten eleven twelve twenty thirty forty fifty""".split()  # noqa: SIM905
)
_MAX_WORDS = 6
_FILLER = frozenset({"of", "the", "a", "an", "in", "total", "about", "approximately"})


def is_unit(word: str) -> bool:
    """Whether a word outside a text command is a unit, not variables."""
    return word.casefold() in _ALIASES


def scale_and_unit(text: str) -> tuple[int, str]:
    """(factor, canonical unit) of the words after a value: "million dollars" is (1000000, "$").

    `square` and `cubic` become powers. Raises UnreadableAnswer for words that are no unit: "or 5", "base two".
    """
    words = _WORDS.findall(text.casefold())
    scale = 1
    while words and words[0] in _SCALES:
        scale *= _SCALES[words.pop(0)]
    more = [word for word in words if word in _NOT_UNITS or word in _SCALES]
    if more or len(words) > _MAX_WORDS:
        raise UnreadableAnswer(f"{' '.join(more or words)!r} behind a value is no unit")
    named = [_ALIASES.get(word, word) for word, after in pairwise([*words, ""]) if not _is_filler(word, after)]
    exponents = [_POWERS.get(word, word) for word in named if word in _POWERS or word.isdigit()]
    return scale, " ".join([word for word in named if word not in _POWERS and not word.isdigit()] + exponents)


def _is_filler(word: str, after: str) -> bool:
    """`in` is an inch unless words follow it, other than its power: "in total", but "in" and "in squared"."""
    return word in _FILLER and (word != "in" or (after.isalpha() and after not in _POWERS))


def units_differ(gold: str, answer: str) -> bool:
    """Whether both units are known and differ. A missing unit contradicts none."""
    names = {gold.split(" ")[0], answer.split(" ")[0]}
    return gold != answer and names <= _UNITS and "unit" not in names
