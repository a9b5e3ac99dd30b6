"""A scored tree as a picture for a page: steps from left to right, one line per answer, coloured by their value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from services.launcher.display.tree_rows import TreeRow
from services.launcher.display.tree_view import ending, visible

BOX_HEIGHT, GAP_X, GAP_Y = 38, 24, 9
CHARACTER, SMALL_CHARACTER = 7.3, 5.7
MAX_TEXT = 28
INK, SOFT, LINE, PLUM = "#1f2933", "#616e7c", "#cbd2d9", "#8a4fcf"


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a node's box lies."""

    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.y + BOX_HEIGHT / 2


def tree_svg(rows: Sequence[TreeRow]) -> str:
    """An SVG element; a box's tooltip tells the whole step and all its figures."""
    boxes = _laid_out(rows)
    width = max(box.x + box.width for box in boxes.values()) + 2
    height = max(box.y for box in boxes.values()) + BOX_HEIGHT + 2
    lines = "".join(_line(boxes[row.parent], boxes[row.node]) for row in rows if row.parent is not None)
    drawn = "".join(_box(row, boxes[row.node]) for row in rows)
    return (
        f'<svg class="tree" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="a tree of answers">{lines}{drawn}</svg>'
    )


def value_color(value: float | None) -> str:
    """Red over amber to green for 0 to 1; grey without a value."""
    return "#9aa5b1" if value is None else f"hsl({round(8 + 137 * value)} 62% 42%)"


def _laid_out(rows: Sequence[TreeRow]) -> dict[int, _Box]:
    """Steps in columns; a leaf takes the next line, another node the middle of its children."""
    level: dict[int, int] = {}
    for row in rows:
        level[row.node] = 0 if row.parent is None else level[row.parent] + 1
    widths = [0.0] * (max(level.values()) + 1)
    for row in rows:
        widths[level[row.node]] = max(widths[level[row.node]], _width(row))
    starts = [sum(widths[:n]) + n * GAP_X + 1 for n in range(len(widths))]
    tops = _tops(rows)
    return {row.node: _Box(starts[level[row.node]], tops[row.node], _width(row)) for row in rows}


def _tops(rows: Sequence[TreeRow]) -> Mapping[int, float]:
    children: dict[int, list[int]] = {row.node: [] for row in rows}
    for row in rows:
        if row.parent is not None:
            children[row.parent].append(row.node)
    leaves = [row.node for row in rows if not children[row.node]]
    tops: dict[int, float] = {leaf: 1 + number * (BOX_HEIGHT + GAP_Y) for number, leaf in enumerate(leaves)}
    for row in reversed(rows):
        if below := children[row.node]:
            tops[row.node] = (tops[below[0]] + tops[below[-1]]) / 2
    return tops


def _line(above: _Box, box: _Box) -> str:
    start, middle = above.x + above.width, (above.x + above.width + box.x) / 2
    path = f"M{start:.1f} {above.middle:.1f} C{middle:.1f} {above.middle:.1f} {middle:.1f} {box.middle:.1f}"
    return f'<path d="{path} {box.x:.1f} {box.middle:.1f}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'


def _box(row: TreeRow, box: _Box) -> str:
    number = f'<tspan fill="{PLUM}" font-weight="600">#{row.draw + 1} </tspan>' if row.draw is not None else ""
    end = f'<tspan fill="{value_color(row.reward)}"> {ending(row)}</tspan>' if row.finish is not None else ""
    color = value_color(row.value)
    x, y, left = f"{box.x:.1f}", f"{box.y:.1f}", f"{box.x + 11:.1f}"
    parts = (
        f"<title>{escape(_told(row))}</title>",
        f'<rect x="{x}" y="{y}" width="{box.width:.1f}" height="{BOX_HEIGHT}" rx="6" fill="#fff" stroke="{LINE}"/>',
        f'<rect x="{x}" y="{box.y + 5:.1f}" width="4" height="{BOX_HEIGHT - 10}" rx="2" fill="{color}"/>',
        f'<text x="{left}" y="{box.y + 16:.1f}" fill="{INK}">{number}{escape(_label(row))}{end}</text>',
        f'<text class="small" x="{left}" y="{box.y + 30:.1f}" fill="{SOFT}">{escape(_figures(row))}</text>',
    )
    return f"<g>{''.join(parts)}</g>"


def _width(row: TreeRow) -> float:
    mark = 0 if row.draw is None else len(f"#{row.draw + 1} ")
    end = 0 if row.finish is None else 2
    return 20 + max(CHARACTER * (mark + len(_label(row)) + end), SMALL_CHARACTER * len(_figures(row)))


def _label(row: TreeRow) -> str:
    text = visible(row.text).rstrip("⏎")
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _figures(row: TreeRow) -> str:
    return _named(("p̂ {:.2f}", row.value), ("η₂ {:.2f}", row.eta2), ("J {:+.2f}", row.ib_score))


def _told(row: TreeRow) -> str:
    figures = _named(
        ("p̂ {:.3f}", row.value), ("η₁ {:+.3f}", row.eta1), ("η₂ {:.3f}", row.eta2), ("IB-Score {:+.3f}", row.ib_score)
    )
    return f"{row.text.strip()}\n{figures}\nanswers through it: {row.num_leaves}"


def _named(*figures: tuple[str, float | None]) -> str:
    return "  ".join(form.format(value) for form, value in figures if value is not None)
