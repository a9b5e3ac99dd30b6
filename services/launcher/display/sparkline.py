"""A row of numbers as one short line of text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A sparkline as wide as its place, at most `width`."""

    values: Sequence[float]
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(sparkline(self.values, min(self.width, options.max_width)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(self.width, len(self.values)))


def sparkline(values: Sequence[float], width: int) -> str:
    """The values, averaged into at most `width` columns, from the lowest bar to the highest."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [index * len(values) // count for index in range(count + 1)]
    columns = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(columns), max(columns)
    if high == low:
        return BARS[len(BARS) // 2 - 1] * len(columns)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in columns)
