"""Pages of the site that are made when it is built: the front page from README.md, and the reference from the code.

MkDocs calls `on_files`; see `hooks` in mkdocs.yml.
"""

import json
import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links into the repository: to a page of the site where there is one, else into the file's name."""
    here = ROOT if page.file.src_uri in _ROOT_PAGES.values() else (ROOT / "docs" / page.file.src_uri).parent

    def in_site(match: re.Match[str]) -> str:
        picture, label, target, anchor = match.groups()
        path = os.path.relpath(here / target, ROOT)
        if path in _ROOT_PAGES or path.startswith("docs/"):
            in_docs = _ROOT_PAGES.get(path) or path.removeprefix("docs/")
            return f"{picture}[{label}]({posixpath.relpath(in_docs, page.file.src_uri + '/..')}{anchor or ''})"
        return f"{label} (`{path}`)" if label.strip("`") != path else label

    return _LINK.sub(in_site, markdown)


def _root_page(name: str) -> Callable[[], str]:
    return lambda: (ROOT / name).read_text(encoding="utf-8")


def _commands() -> str:
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from services.launcher.cli import app

    command = get_command(app)
    with command.make_context("ibtpo", ["config"]) as context:
        return get_docs_for_click(obj=command, ctx=context, name="ibtpo", title="Commands")


def _configuration() -> str:
    from services.launcher.commands.explain import describe_keys
    from services.launcher.settings.plan import SECTIONS
    from shared.runtime.config import walk_keys

    parts = [_CONFIGURATION]
    for section, model in SECTIONS.items():
        parts.append(f"\n## {section}\n")
        rows_of: dict[str, list[list[str]]] = {}
        for path, default, meaning in describe_keys(walk_keys(section, model)):
            table, _, name = path.rpartition(".")
            rows_of.setdefault(table, []).append([f"`{name}`", default, meaning])
        for table, rows in rows_of.items():
            heading = "" if table == section else f"\n### {table}\n\n"
            parts.append(heading + _table(["key", "default", "meaning"], rows))
    return "\n".join(parts)


_CONFIGURATION = """# Configuration

Every setting, as `ibtpo config` explains it: the sections of a configuration file, and the tables in them. On a command
line the section, and tables, may be left out where that leaves no doubt: `lr=1e-5` is `learner.optimizer.lr=1e-5`.
"""


def _presets() -> str:
    from shared.runtime.config import preset_names, preset_path, read_about

    rows, texts = [], []
    for name in preset_names():
        about, text = read_about(name), preset_path(name).read_text(encoding="utf-8")
        rows.append([f"[{name}](#{name})", about.kind.value, about.sentence, about.reference])
        texts.append(f"\n## {name}\n\n```toml\n{text.strip()}\n```\n")
    return _PRESETS + _table(["preset", "kind", "what it does", "published"], rows) + "".join(texts)


_PRESETS = """# Presets

Given as `--config NAME`; a copy is a file of your own. `ibtpo presets` lists them, and `ibtpo config --diff A B` says
how two differ.

"""


def _figures() -> str:
    from shared.protocol.figures import RunSummary, StepFigures, figures_in

    found = figures_in(StepFigures) | figures_in(RunSummary)
    rows = [[f"`{name}`", figure.label, figure.unit or "–", figure.help] for name, figure in found.items()]
    head = "# Figures\n\nWhat a run reports, under these names in metrics.jsonl, summary.json and Prometheus.\n\n"
    return head + _table(["name", "label", "unit", "meaning"], rows)


def _api(service: str) -> Callable[[], str]:
    """The page of a service's HTTP interface, from its own OpenAPI description."""

    def page() -> str:
        from openapidocs.mk.v3 import OpenAPIV3DocumentationHandler
        from prometheus_client import CollectorRegistry

        from services.learner.app import build_router as learner
        from services.rollout.app import build_router as rollout
        from services.verifier.app import build_router as verifier
        from shared.runtime.app import create_app

        none: Any = None  # no route is called: they are only described
        routers = {
            "rollout": lambda: rollout(none, none, none, none, "", none),
            "verifier": lambda: verifier(none, 1.0),
        }
        router = routers.get(service, lambda: learner(none, none, none))()
        app = create_app(
            service, router, lifespan=none, ready=none, registry=CollectorRegistry(), token=none, max_body_bytes=0
        )
        text = str(OpenAPIV3DocumentationHandler(app.openapi()).write())
        return re.sub(r"\A.*?^# [^\n]*", f"# HTTP of the {service}", text, count=1, flags=re.DOTALL | re.MULTILINE)

    return page


def _notebook(path: Path) -> Callable[[], str]:
    """The page of a notebook: its texts, and its code without what it prints."""

    def page() -> str:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ("".join(cell["source"]) for cell in cells)
        parts = (
            text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
            for cell, text in zip(cells, texts, strict=True)
            if text
        )
        return "\n\n".join(parts) + f"\n\n[The notebook itself]({path.name})\n"

    return page


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)]) + "\n"


def _cell(text: str) -> str:
    """Text as a cell: nothing in it is taken for a column, a tag or an attribute."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")


PAGES: dict[str, Callable[[], str]] = {
    **{page: _root_page(name) for name, page in _ROOT_PAGES.items()},
    "notebooks/first-tree.md": _notebook(ROOT / "docs/notebooks/first-tree.ipynb"),
    "reference/commands.md": _commands,
    "reference/configuration.md": _configuration,
    "reference/presets.md": _presets,
    "reference/figures.md": _figures,
    **{f"reference/api-{service}.md": _api(service) for service in ("rollout", "verifier", "learner")},
}
