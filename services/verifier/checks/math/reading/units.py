"""Units behind a value: which words are units, and which are the same."""

import re

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
_WORDS = re.compile(r"[a-z]+|%|\\%|\\?\$|°|€|£|¢|[0-9]+")
_POWERS = {"square": "2", "squared": "2", "sq": "2", "cubic": "3", "cubed": "3"}
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words that make a value another one, or no single one.
_SAYING_MORE = frozenset(
    """or and not maybe perhaps possibly either neither to from minus plus times over base mod modulo half thirds
    quarter point less more than least most between except unless if when where zero one two three four five six
    seven eight nine ten eleven twelve twenty thirty forty fifty""".split()  # noqa: SIM905
)
_MOST_WORDS = 6
_FILLER = frozenset({"of", "the", "a", "an", "in", "total", "about", "approximately"})


def is_unit(word: str) -> bool:
    """Whether a bare word (outside any text command) is a unit rather than variables."""
    return word.casefold() in _ALIASES


def scale_and_unit(text: str) -> tuple[int, str]:
    """What the words behind a value multiply it by, and the unit that they name, in its canonical spelling.

    `square` and `cubic` become powers. Raises UnreadableAnswer for words that say more than a unit: "or 5", "base two".
    """
    words = _WORDS.findall(text.casefold())
    scale = 1
    while words and words[0] in _SCALES:
        scale *= _SCALES[words.pop(0)]
    more = [word for word in words if word in _SAYING_MORE or word in _SCALES]
    if more or len(words) > _MOST_WORDS:
        raise UnreadableAnswer(f"{' '.join(more or words)!r} behind a value is no unit")
    named = [_ALIASES.get(word, word) for word in words if word not in _FILLER]
    exponents = [_POWERS.get(word, word) for word in named if word in _POWERS or word.isdigit()]
    return scale, " ".join([word for word in named if word not in _POWERS and not word.isdigit()] + exponents)


def may_differ(gold: str, answer: str) -> bool:
    """Whether two units contradict each other: both known, and not the same. A missing one contradicts none."""
    known = set(_ALIASES.values())
    return (
        gold != answer
        and gold.split(" ")[0] in known
        and answer.split(" ")[0] in known
        and "unit"
        not in (
            gold.split(" ")[0],
            answer.split(" ")[0],
        )
    )
