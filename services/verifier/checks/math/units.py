"""Units behind a value: which words are units, and which are the same."""

import re

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
_FILLER = frozenset({"of", "the", "a", "an", "in", "total", "about", "approximately"})


def is_unit(word: str) -> bool:
    """Whether a bare word (outside any text command) is a unit rather than variables."""
    return word.casefold() in _ALIASES


def unit_name(text: str) -> str:
    """The canonical spelling of a unit: known words by their shortest name, `square` and `cubic` as powers."""
    words = [_ALIASES.get(word, word) for word in _WORDS.findall(text.casefold())]
    powers = {"square": "2", "squared": "2", "sq": "2", "cubic": "3", "cubed": "3"}
    exponents = [powers.get(word, word) for word in words if word in powers or word.isdigit()]
    names = [word for word in words if word not in powers and not word.isdigit() and word not in _FILLER]
    return " ".join(names + exponents)


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
