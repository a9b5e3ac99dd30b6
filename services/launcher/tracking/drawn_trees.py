"""The latest trees of a run, drawn for trackers."""

import io
from pathlib import Path

from rich.console import Console

from services.launcher.display.node_views import describe_nodes
from services.launcher.display.tree_svg import draw_page
from services.launcher.display.tree_view import render_tree
from services.launcher.runs.kept_trees import KeptTree, load_kept_trees
from services.launcher.runs.run_dir import RunDirectory
from services.launcher.tracking.tracker import TrackedTree
from shared.errors import InvalidInput

NUM_TREES = 2
_COLUMNS = 120
_NAME_CHARACTERS = 80


def draw_latest_trees(directory: Path) -> tuple[TrackedTree, ...]:
    """The newest trees that the run kept; none where they, or the tokens' texts, cannot be read."""
    try:
        return tuple(map(_draw, load_kept_trees(RunDirectory(directory))[:NUM_TREES]))
    except (OSError, InvalidInput):
        return ()


def _draw(kept: KeptTree) -> TrackedTree:
    console = Console(file=io.StringIO(), width=_COLUMNS, record=True, color_system=None)
    console.print(render_tree(kept.scored, kept.message, kept.tokens))
    name = " ".join(kept.message.split())[:_NAME_CHARACTERS]
    svg = draw_page(describe_nodes(kept.scored, kept.message, kept.tokens))
    return TrackedTree(name, console.export_text(), svg)
