"""Line charts as SVG, which take their colours from the page: light, dark, and readable without colour.

We draw them ourselves: a page of them opens without scripts and is a tenth of the size of pictures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 40
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b5549a", "#b07800", "#3a9bd6", "#5a6672")
"""Okabe and Ito's, darkened where white paper asks for it: told apart by people who see few colours."""
DARK_COLORS = ("#56b4e9", "#f08a4b", "#3ecfa4", "#e59ac8", "#f0c04a", "#9fd0f5", "#b6c2ce")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 5", "4 2 1 2", "1 4")
_MARKS = ("circle", "square", "triangle", "diamond")
NUM_LOOKS = 28
"""So many lines look different: by colour, dashes and mark."""
_MAX_POINTS = 240
_TICKS = 5


class Point(NamedTuple):
    """A value and, where it is known, its standard error."""

    x: float
    y: float
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A curve with a band of ± one standard error; `marked` points are few and each is shown."""

    label: str
    points: tuple[Point, ...]
    look: int
    """Which colour, dashes and mark; lines of one group look alike in all charts."""
    marked: bool = False
    dots: tuple[Point, ...] = ()
    """What was smoothed into the curve."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to positions, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        step = nice_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def render_chart(
    lines: Sequence[Line], description: str, x_label: str, y_label: str, format_x: Callable[[float], str]
) -> str:
    """An SVG element; the description is for those who do not see it."""
    shown = [thinned(line) for line in lines if line.points]
    xs = [point.x for line in shown for point in (*line.points, *line.dots)]
    ys = [y for line in shown for point in line.points for y in _extent(point)]
    ys += [point.y for line in shown for point in line.dots]
    across = Scale(*_widened(min(xs), max(xs), 0.0), LEFT, WIDTH - RIGHT)
    up = Scale(*_widened(min(ys), max(ys), 0.06), HEIGHT - BOTTOM, TOP)
    parts = [*_axes(across, up, x_label, y_label, format_x)]
    for line in shown:
        parts += _render_line(line, across, up)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"{''.join(parts)}</svg>"
    )


def render_stack(
    lines: Sequence[Line], description: str, x_label: str, y_label: str, format_x: Callable[[float], str]
) -> str:
    """The same with areas that add up; the lines have the same x."""
    total = [0.0] * len(lines[0].points)
    areas = []
    for line in lines:
        below = list(total)
        total = [low + point.y for low, point in zip(below, line.points, strict=True)]
        areas.append((line, below, list(total)))
    xs = [point.x for point in lines[0].points]
    across = Scale(*_widened(min(xs), max(xs), 0.0), LEFT, WIDTH - RIGHT)
    up = Scale(*_widened(0.0, max(total), 0.04), HEIGHT - BOTTOM, TOP)
    parts = [*_axes(across, up, x_label, y_label, format_x)]
    for line, below, above in areas:
        top = [(across(x), up(y)) for x, y in zip(xs, above, strict=True)]
        bottom = [(across(x), up(y)) for x, y in zip(xs, below, strict=True)]
        parts.append(
            f'<polygon class="area l{line.look}" points="{_positions([*top, *reversed(bottom)])}">'
            f"<title>{escape(line.label)}</title></polygon>"
        )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"{''.join(parts)}</svg>"
    )


def render_key(look: int, *, marked: bool = False, filled: bool = False) -> str:
    """A line's or an area's look, for a legend."""
    shape = f'<path class="line l{look}" d="M1 7H27"/>{_render_mark(look, 14, 7) if marked else ""}'
    if filled:
        shape = f'<rect class="area l{look}" x="4" y="1" width="20" height="12"/>'
    return f'<svg class="key" viewBox="0 0 28 14" aria-hidden="true">{shape}</svg>'


def chart_style() -> str:
    """The style that charts need: of a page, which says what --ink, --soft, --line and --paper are."""
    looks = "".join(
        f".l{look}{{--c:var(--c{look % len(COLORS)});stroke-dasharray:{_dashes(look)}}}" for look in range(NUM_LOOKS)
    )
    light = "".join(f"--c{look}:{color};" for look, color in enumerate(COLORS))
    dark = "".join(f"--c{look}:{color};" for look, color in enumerate(DARK_COLORS))
    return (
        f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{looks}"
        ".line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}"
        ".band{fill:var(--c);opacity:.18;stroke:none}.dot{fill:var(--c);opacity:.35}"
        ".mark{fill:var(--c);stroke:var(--paper);stroke-width:1;stroke-dasharray:none}"
        ".area{fill:var(--c);opacity:.8;stroke:var(--paper);stroke-width:1;stroke-dasharray:none}"
        ".rule{stroke:var(--line);stroke-width:1}.chart text{fill:var(--soft);font:11px system-ui,sans-serif}"
    )


def _dashes(look: int) -> str:
    """Others where a colour comes again."""
    return DASHES[(look + look // len(COLORS)) % len(DASHES)] or "none"


def thinned(line: Line) -> Line:
    """With no more points than can be seen: each stands for the mean of as many neighbours."""
    size = math.ceil(len(line.points) / _MAX_POINTS)
    if size <= 1:
        return line
    parts = [line.points[start : start + size] for start in range(0, len(line.points), size)]
    return Line(line.label, tuple(map(_mean, parts)), line.look, line.marked, line.dots[::size])


def _mean(points: Sequence[Point]) -> Point:
    errors = [point.error for point in points if point.error is not None]
    count = len(points)
    return Point(
        sum(point.x for point in points) / count,
        sum(point.y for point in points) / count,
        sum(errors) / len(errors) if errors else None,
    )


def _extent(point: Point) -> tuple[float, float]:
    error = point.error or 0.0
    return point.y - error, point.y + error


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """A range that is not empty, with room at both ends."""
    if low == high == 0.0:
        return 0.0, 1.0
    if high - low < 1e-12 * max(1.0, abs(high)):
        room = abs(high) * 0.05 or 0.5
        return low - room, high + room
    return low - share * (high - low), high + share * (high - low)


def _axes(across: Scale, up: Scale, x_label: str, y_label: str, format_x: Callable[[float], str]) -> Iterator[str]:
    ticks = up.ticks
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 2
    for tick in ticks:
        y = up(tick)
        yield f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_format_tick(tick, digits)}</text>'
    for tick in across.ticks:
        text = format_x(tick)
        yield f'<text x="{across(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    height = (TOP + HEIGHT - BOTTOM) / 2
    yield (
        f'<text x="12" y="{height:.0f}" text-anchor="middle" transform="rotate(-90 12 {height:.0f})">'
        f"{escape(y_label)}</text>"
    )


def _format_tick(value: float, digits: int) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.{digits}f}" if digits <= 5 else f"{value:.0e}"


def _render_line(line: Line, across: Scale, up: Scale) -> Iterator[str]:
    for dot in line.dots:
        yield f'<circle class="dot l{line.look}" cx="{across(dot.x):.1f}" cy="{up(dot.y):.1f}" r="1.6"/>'
    if any(point.error for point in line.points):
        above = [(across(point.x), up(_extent(point)[1])) for point in line.points]
        below = [(across(point.x), up(_extent(point)[0])) for point in line.points]
        yield f'<polygon class="band l{line.look}" points="{_positions([*above, *reversed(below)])}"/>'
    positions = [(across(point.x), up(point.y)) for point in line.points]
    if len(positions) > 1:
        yield f'<polyline class="line l{line.look}" points="{_positions(positions)}"/>'
    if line.marked or len(positions) == 1:
        for (x, y), point in zip(positions, line.points, strict=True):
            error = "" if point.error is None else f" ± {point.error:.3f}"
            title = f"<title>{escape(line.label)}: {point.y:.3f}{error}</title>"
            yield f"<g>{title}{_render_mark(line.look, x, y)}</g>"


def _render_mark(look: int, x: float, y: float) -> str:
    match _MARKS[look % len(_MARKS)]:
        case "circle":
            return f'<circle class="mark l{look}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case "square":
            return f'<rect class="mark l{look}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
        case "triangle":
            return f'<path class="mark l{look}" d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'
        case _:
            return f'<path class="mark l{look}" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z"/>'


def _positions(positions: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
