"""How a notebook shows things: drawings in a frame, and what a terminal shows as HTML."""

from html import escape
from io import StringIO

from rich.console import Console, RenderableType

WIDTH = 110
_STYLE = (
    ".ibtpo-tree{overflow-x:auto;background:#fff;padding:6px}"
    ".ibtpo-tree text{font:12px ui-monospace,monospace;white-space:pre}.ibtpo-tree .small{font-size:9.5px}"
    ".ibtpo-tree p{font:12px ui-monospace,monospace;color:#616e7c;margin:6px 2px}"
)
_FORMAT = (
    "<pre style=\"white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,"
    'monospace">{code}</pre>'
)


def frame_svg(svg: str, caption: str) -> str:
    """An SVG element, which escapes its own texts, in a frame that scrolls, with a line below it."""
    return f'<div class="ibtpo-tree"><style>{_STYLE}</style>{svg}<p>{escape(caption)}</p></div>'


def to_html(renderable: RenderableType) -> str:
    """What a terminal would show, with its colours."""
    console = Console(file=StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor")
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_FORMAT)


def is_notebook() -> bool:
    """Whether this runs in a notebook, or another front end that draws HTML."""
    return Console().is_jupyter
