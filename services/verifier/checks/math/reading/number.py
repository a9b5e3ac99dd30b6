r"""Parses exact rationals: 18, -3.50, 1,234, \frac{6}{14}, 3/4, 2\frac{1}{2}, 1.6\times 10^{-19}, 5e-7.

No eval, no floats. Exponents beyond `_MAX_WRITTEN_EXPONENT` are not written out: a short text makes no long number.
"""

import re
from fractions import Fraction

from services.verifier.checks.math.reading.forms import Number, Scientific

_MAX_WRITTEN_EXPONENT = 400
MAX_DIGITS = 4_000  # below Python's own limit for int(text)

_DIGITS = r"[0-9]+"
_INTEGER = rf"(?:[0-9]{{1,3}}(?:(?:,|\{{,\}}|,\\!\s*|\\,|\\ )[0-9]{{3}})+|[0-9]{{1,3}}(?:[ ][0-9]{{3}})+|{_DIGITS})"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)\s*+(?:\\?\$\s*+)?(?:
      (?P<whole>{_INTEGER})?\s*+\\[dtc]?frac\s*(?:
          \{{\s*+(?P<minus>-?)\s*+(?P<over>{_INTEGER})\s*\}}\s*+\{{\s*+(?P<under>{_INTEGER})\s*\}}
        | \s*+(?P<over1>[0-9])\s*+(?P<under1>[0-9])
        | \{{(?P<over2>[0-9]+)\}}\s*(?P<under2>[0-9])
        | \s*(?P<over3>[0-9])\s*\{{(?P<under3>[0-9]+)\}} )
    | (?P<integer>{_INTEGER})?(?P<decimals>\.[0-9]*)?
      (?: \s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*(?P<exponent>[-+]?[0-9]+)\s*\}}|(?P<exponent1>[-+]?[0-9]+))
        | [eE](?P<exponent2>[-+]?[0-9]+)
        | \s*/\s*(?P<divisor>{_INTEGER}) )?
    )""",
    re.VERBOSE,
)
_SEPARATORS = re.compile(r"[^0-9]+")


def parse_number(text: str) -> Number | Scientific | None:
    """The rational, or None if `text` is anything else."""
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return Number(Fraction(int(text)))
    if len(text) > MAX_DIGITS:
        return None
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    part = found.groupdict()
    over = part["over"] or part["over1"] or part["over2"] or part["over3"]
    if over is not None:
        under = part["under"] or part["under1"] or part["under2"] or part["under3"]
        return _fraction(part["sign"], part["whole"], part["minus"] or "", over, under)
    exponent = part["exponent"] or part["exponent1"] or part["exponent2"] or "0"
    return _decimal(part["sign"], part["integer"], part["decimals"], exponent, part["divisor"])


def _fraction(sign: str, whole: str | None, minus: str, over: str, under: str) -> Number | None:
    if _int(under) == 0 or (whole and minus):
        return None
    value = Fraction(_int(over), _int(under)) + (_int(whole) if whole else 0)
    return Number(-value if (sign == "-") != (minus == "-") else value)


def _decimal(
    sign: str, integer: str | None, decimals: str | None, exponent: str, divisor: str | None
) -> Number | Scientific | None:
    digits = (decimals or ".")[1:]
    if integer is None and not digits:
        return None
    if divisor is not None:
        if _int(divisor) == 0 or digits:
            return None
        value = Fraction(_int(integer or "0"), _int(divisor))
        return Number(-value if sign == "-" else value)
    mantissa = _int((_SEPARATORS.sub("", integer) if integer else "") + digits)
    return times_power_of_ten(-mantissa if sign == "-" else mantissa, exponent, len(digits))


def times_power_of_ten(mantissa: int, exponent: str, num_decimals: int = 0) -> Number | Scientific | None:
    """mantissa · 10^(exponent - num_decimals); Scientific if that is long, None if the exponent itself is."""
    if mantissa == 0:
        return Number(Fraction(0))
    if len(exponent) > 20:
        return None
    power = int(exponent) - num_decimals
    if abs(power) <= _MAX_WRITTEN_EXPONENT:
        return Number(Fraction(mantissa) * Fraction(10) ** power)
    while mantissa % 10 == 0:
        mantissa, power = mantissa // 10, power + 1
    return Scientific(mantissa, power)


def _int(text: str) -> int:
    return int(_SEPARATORS.sub("", text))
