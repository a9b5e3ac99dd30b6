"""A scored tree as a picture for a page: steps as boxes coloured by their value, in the order they grew."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from services.local.tree_rows import TreeRow
from services.local.tree_view import ending, visible

ROW, INDENT, TEXT_WIDTH = 24, 26, 7.2
MAX_TEXT = 48
COLUMNS = (("p̂", 0), ("η₁", 54), ("η₂", 108), ("IB-Score", 176), ("answers", 240))
_FIGURES_WIDTH = 260
_GREY, _LINE = "#9aa5b1", "#cbd2d9"


@dataclass(frozen=True, slots=True)
class _Place:
    x: float
    y: float


def tree_svg(rows: Sequence[TreeRow]) -> str:
    """An SVG element, one row per node; hovering a row tells its figures."""
    places = [_Place(14 + INDENT * row.depth, ROW * (number + 1) + 14) for number, row in enumerate(rows)]
    widths = [place.x + 40 + TEXT_WIDTH * len(_label(row)) for place, row in zip(places, rows, strict=True)]
    figures_x = max(widths) + 24
    width, height = figures_x + _FIGURES_WIDTH, ROW * (len(rows) + 1) + 14
    head = "".join(_cell(figures_x + x, 22, name, _GREY) for name, x in COLUMNS)
    lines = "".join(_lines(rows, places))
    body = "".join(_row(row, place, figures_x) for row, place in zip(rows, places, strict=True))
    return (
        f'<svg class="tree" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="a tree of answers">{head}{lines}{body}</svg>'
    )


def value_color(value: float | None) -> str:
    """Red over amber to green for 0 to 1; grey without a value."""
    return _GREY if value is None else f"hsl({round(8 + 137 * value)} 62% 42%)"


def _lines(rows: Sequence[TreeRow], places: Sequence[_Place]) -> list[str]:
    """From each node to the one that it continues."""
    drawn = []
    last_at_depth: dict[int, _Place] = {}
    for row, place in zip(rows, places, strict=True):
        above = last_at_depth.get(row.depth if row.draw is None else row.depth - 1)
        if above is not None:
            line = f"M{above.x} {above.y} V{place.y} H{place.x}"
            drawn.append(f'<path d="{line}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>')
        last_at_depth[row.depth] = place
    return drawn


def _row(row: TreeRow, place: _Place, figures_x: float) -> str:
    mark = f"#{row.draw + 1} " if row.draw is not None else ""
    weight = ' font-weight="600"' if row.parent is None else ""
    cells = (
        (_number(row.value, "{:.2f}"), value_color(row.value)),
        (_number(row.eta1, "{:+.2f}"), "currentColor"),
        (_number(row.eta2, "{:.2f}"), "currentColor"),
        (_number(row.ib_score, "{:+.3f}"), "#2f6fde" if (row.ib_score or 0) > 0 else "currentColor"),
        (str(row.num_leaves) if row.num_leaves > 1 else "", _GREY),
    )
    figures = "".join(
        _cell(figures_x + x, place.y + 4, text, color) for (_, x), (text, color) in zip(COLUMNS, cells, strict=True)
    )
    end = f'<tspan fill="{value_color(row.reward)}">{_end(row)}</tspan>'
    return (
        f'<circle cx="{place.x}" cy="{place.y}" r="5" fill="{value_color(row.value)}"/>'
        f'<text x="{place.x + 12}" y="{place.y + 4}"{weight}><tspan fill="#8a4fcf" font-weight="600">{mark}</tspan>'
        f"<tspan>{escape(_label(row))}</tspan>{end}</text>{figures}"
    )


def _cell(x: float, y: float, text: str, color: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="end" fill="{color}">{escape(text)}</text>' if text else ""


def _label(row: TreeRow) -> str:
    text = visible(row.text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _end(row: TreeRow) -> str:
    return f" {ending(row)}" if row.finish is not None else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
