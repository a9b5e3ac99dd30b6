"""How a notebook shows things: drawings in a frame, and what a terminal shows as HTML."""

import time
from html import escape
from importlib import import_module
from io import StringIO
from typing import Any, cast

from rich.console import Console, Group, RenderableType
from rich.text import Text

from services.launcher.display.view import render_status
from services.launcher.runs.history import History
from shared.protocol.status import RunStatus

WIDTH = 116
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
    console = _console(record=True, force_terminal=True, color_system="truecolor")
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_FORMAT)


def to_text(renderable: RenderableType) -> str:
    """What a terminal without colours would show."""
    console = _console(color_system=None)
    console.print(renderable)
    return cast(StringIO, console.file).getvalue().rstrip()


def _console(**options: Any) -> Console:
    """A console that writes to memory, in a notebook, too."""
    return Console(file=StringIO(), width=WIDTH, force_jupyter=False, **options)


def is_notebook() -> bool:
    """Whether this runs in a notebook, or another front end that draws HTML."""
    return Console().is_jupyter


class NotebookView:
    """A run's screen in a notebook's cell, drawn again for every status."""

    def __init__(self, history: History) -> None:
        ipython: Any = import_module("IPython.display")  # only a notebook has it
        self._history = history
        self._html = ipython.HTML
        self._output = ipython.display(ipython.HTML(""), display_id=True)
        self._events: list[str] = []
        self._status: RunStatus | None = None
        self._waited_for = ""

    def say(self, text: str) -> None:
        self._events.append(text)
        self._draw()

    def wait_for(self, text: str) -> None:
        if text != self._waited_for:
            self._waited_for = text
            self._draw()

    def show(self, status: RunStatus) -> None:
        if self._status is None:
            self._events.clear()
        self._status = status
        self._history.add(status)
        self._draw()

    def close(self) -> None:
        """Does nothing: what is drawn stays."""

    def _draw(self) -> None:
        said = [Text(text, style="dim") for text in (*self._events[-6:], self._waited_for) if text]
        status = self._status
        shown = [render_status(status, self._history, time.time())] if status is not None else []
        self._output.update(self._html(to_html(Group(*shown, *said))))
