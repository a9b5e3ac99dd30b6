"""The house holds together: import contracts, and documents that speak of what exists."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_import_contracts_hold() -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_text_file_is_read_and_written_in_a_stated_encoding() -> None:
    """Without one, the locale of whoever starts a service decides."""
    modules = [path for room in ("ibtpo", "services", "shared", "deploy") for path in (ROOT / room).rglob("*.py")]
    calls = ((path, node) for path in modules for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    silent = [f"{path.relative_to(ROOT)}:{node.lineno}" for path, node in calls if _is_text_without_encoding(node)]
    assert silent == []


def _is_text_without_encoding(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    of = node.func.value if isinstance(node.func, ast.Attribute) else None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if "encoding" in keywords or (isinstance(of, ast.Name) and of.id in ("os", "_TemporaryServices")):
        return False
    texts = [arg.value for arg in (*node.args, *keywords.values()) if isinstance(arg, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwaxbt+")]
    match name:
        case "read_text":
            return not node.args and of is not None
        case "write_text":
            return True
        case "open":  # of a file, or something else of that name
            is_file = of is None or not node.args or bool(modes)
            return is_file and not any("b" in mode for mode in modes)
        case _:
            text = keywords.get("text")
            return isinstance(text, ast.Constant) and text.value is True
