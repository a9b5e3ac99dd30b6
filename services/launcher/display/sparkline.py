"""A row of numbers as one short line of text."""

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The values, averaged into at most `width` columns, from the lowest bar to the highest."""
    if not values or width < 1:
        return ""
    columns = _columns(values, width)
    low, high = min(columns), max(columns)
    if high == low:
        return BARS[len(BARS) // 2 - 1] * len(columns)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in columns)


def _columns(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [index * len(values) // width for index in range(width + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
