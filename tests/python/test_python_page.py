"""The examples of docs/python.md, and the notebook, as their readers run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "docs" / "notebooks" / "first-tree.ipynb"
SHORT = (
    ("total_steps=12", "total_steps=2, replicas=1"),
    ('"evaluation.problems": 60', '"evaluation.problems": 6, "evaluation.k": 2'),
)

pytestmark = [pytest.mark.drill, pytest.mark.timeout(600)]


@pytest.mark.slow
def test_every_example_of_the_page_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^(<!-- not run[^\n]*\n)?```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    program = "\n".join(block for is_left_out, block in blocks if not is_left_out)
    assert len(blocks) > 8
    (tmp_path / "page.py").write_text(program, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": ""}
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "did you mean rounds?" in done.stdout
    assert (tmp_path / "runs" / "first" / "report.html").exists()


def test_the_notebook_runs_and_draws_its_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("REDIS_URL", raising=False)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": [],' in text
    assert '"output_type"' not in text, "outputs are not committed"
    for long, short in SHORT:
        assert long in text.replace('\\"', '"')
        text = text.replace(long.replace('"', '\\"'), short.replace('"', '\\"'))
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(notebook, timeout=580, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pages = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    assert sum('<div class="ibtpo-tree">' in page for page in pages) == 4
    assert any("finished" in page and "ibtpo · first-tree" in page for page in pages)
