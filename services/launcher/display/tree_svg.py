"""A scored tree as an SVG: steps from left to right, one line per answer, coloured by value.

We lay it out ourselves because the page must work without scripts, and graph layouts need Graphviz.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from services.launcher.display.node_views import NodeView
from services.launcher.display.tree_view import escape_breaks, leaf_mark, printable

BOX_HEIGHT, GAP_X, GAP_Y = 38, 24, 9
CHARACTER, SMALL_CHARACTER = 7.3, 5.7
MAX_TEXT = 28
INK, SOFT, LINE, PLUM = "#1f2933", "#616e7c", "#cbd2d9", "#8a4fcf"


@dataclass(frozen=True, slots=True)
class _Box:
    """The position and width of a node's box."""

    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.y + BOX_HEIGHT / 2


def render_tree_svg(nodes: Sequence[NodeView]) -> str:
    """An SVG element; the tooltip of a box holds the whole step and all its figures."""
    boxes = _lay_out(nodes)
    width = max(box.x + box.width for box in boxes.values()) + 2
    height = max(box.y for box in boxes.values()) + BOX_HEIGHT + 2
    lines = "".join(_render_line(boxes[node.parent], boxes[node.id]) for node in nodes if node.parent is not None)
    rectangles = "".join(_render_box(node, boxes[node.id]) for node in nodes)
    return (
        f'<svg class="tree" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="img" aria-label="a tree of answers">{lines}{rectangles}</svg>'
    )


def draw_page(nodes: Sequence[NodeView]) -> str:
    """The element as a file of its own: with its font, and white behind it."""
    start, end = render_tree_svg(nodes).split(">", 1)
    style = "text{font:12px ui-monospace,monospace;white-space:pre}.small{font-size:9.5px}"
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{start} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{background}{end}\n'


def value_color(value: float | None) -> str:
    """Red over amber to green for 0 to 1; grey without a value."""
    return "#9aa5b1" if value is None else f"hsl({round(8 + 137 * value)} 62% 42%)"


def _lay_out(nodes: Sequence[NodeView]) -> dict[int, _Box]:
    """One column per step; a leaf takes the next line, an inner node the middle of its children."""
    level: dict[int, int] = {}
    for node in nodes:
        level[node.id] = 0 if node.parent is None else level[node.parent] + 1
    widths = [0.0] * (max(level.values()) + 1)
    for node in nodes:
        widths[level[node.id]] = max(widths[level[node.id]], _width(node))
    starts = [sum(widths[:n]) + n * GAP_X + 1 for n in range(len(widths))]
    tops = _tops(nodes)
    return {node.id: _Box(starts[level[node.id]], tops[node.id], _width(node)) for node in nodes}


def _tops(nodes: Sequence[NodeView]) -> Mapping[int, float]:
    children: dict[int, list[int]] = {node.id: [] for node in nodes}
    for node in nodes:
        if node.parent is not None:
            children[node.parent].append(node.id)
    leaves = [node.id for node in nodes if not children[node.id]]
    tops: dict[int, float] = {leaf: 1 + number * (BOX_HEIGHT + GAP_Y) for number, leaf in enumerate(leaves)}
    for node in reversed(nodes):
        if below := children[node.id]:
            tops[node.id] = (tops[below[0]] + tops[below[-1]]) / 2
    return tops


def _render_line(above: _Box, box: _Box) -> str:
    start, middle = above.x + above.width, (above.x + above.width + box.x) / 2
    path = f"M{start:.1f} {above.middle:.1f} C{middle:.1f} {above.middle:.1f} {middle:.1f} {box.middle:.1f}"
    return f'<path d="{path} {box.x:.1f} {box.middle:.1f}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'


def _render_box(node: NodeView, box: _Box) -> str:
    number = f'<tspan fill="{PLUM}" font-weight="600">#{node.draw + 1} </tspan>' if node.draw is not None else ""
    end = f'<tspan fill="{value_color(node.reward)}"> {leaf_mark(node)}</tspan>' if node.finish is not None else ""
    color = value_color(node.value)
    x, y, left = f"{box.x:.1f}", f"{box.y:.1f}", f"{box.x + 11:.1f}"
    parts = (
        f"<title>{escape(_tooltip(node))}</title>",
        f'<rect x="{x}" y="{y}" width="{box.width:.1f}" height="{BOX_HEIGHT}" rx="6" fill="#fff" stroke="{LINE}"/>',
        f'<rect x="{x}" y="{box.y + 5:.1f}" width="4" height="{BOX_HEIGHT - 10}" rx="2" fill="{color}"/>',
        f'<text x="{left}" y="{box.y + 16:.1f}" fill="{INK}">{number}{escape(_label(node))}{end}</text>',
        f'<text class="small" x="{left}" y="{box.y + 30:.1f}" fill="{SOFT}">{escape(_format_figures(node))}</text>',
    )
    return f"<g>{''.join(parts)}</g>"


def _width(node: NodeView) -> float:
    mark = 0 if node.draw is None else len(f"#{node.draw + 1} ")
    end = 0 if node.finish is None else 2
    return 20 + max(CHARACTER * (mark + len(_label(node)) + end), SMALL_CHARACTER * len(_format_figures(node)))


def _label(node: NodeView) -> str:
    text = escape_breaks(node.text).rstrip("⏎")
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _format_figures(node: NodeView) -> str:
    return _join_figures(("p̂ {:.2f}", node.value), ("η₂ {:.2f}", node.eta2), ("J {:+.2f}", node.ib_score))


def _tooltip(node: NodeView) -> str:
    figures = _join_figures(
        ("p̂ {:.3f}", node.value),
        ("η₁ {:+.3f}", node.eta1),
        ("η₂ {:.3f}", node.eta2),
        ("IB-Score {:+.3f}", node.ib_score),
    )
    return f"{printable(node.text.strip())}\n{figures}\nanswers through it: {node.num_leaves}"


def _join_figures(*figures: tuple[str, float | None]) -> str:
    return "  ".join(form.format(value) for form, value in figures if value is not None)
