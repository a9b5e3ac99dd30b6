"""Runs as objects, and their figures as tables."""

import builtins
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ibtpo
from tests.launcher.report.folders import write_run


@pytest.fixture
def run(tmp_path: Path) -> ibtpo.Run:
    """A finished run of four steps, evaluated before and after."""
    write_run(tmp_path / "runs" / "first", {0: [[0.0, 0.0], [1.0, 0.0]], 4: [[1.0, 0.0], [1.0, 0.0]]})
    return ibtpo.Run("first", runs=tmp_path / "runs")


def test_a_run_has_its_figures_as_columns(run: ibtpo.Run) -> None:
    assert run.metrics["step"] == [1, 2, 3, 4]
    assert run.metrics["root_value"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert run.evaluations["step"] == [0, 4]
    assert run.evaluations["avg_at_k"] == [0.25, 0.5]
    assert run.summary["method"] == "grpo"
    assert run.config["learner"]["seed"] == 0
    assert run.trees == ()
    assert (run.is_finished, run.is_running, run.name) == (True, False, "first")


def test_a_run_shows_itself(run: ibtpo.Run) -> None:
    assert repr(run) == f"<Run first in {run.path}, finished>"
    assert "avg@2" in str(run)
    assert "first" in run._repr_html_()
    assert run.report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_run_without_a_policy_says_how_to_get_one(run: ibtpo.Run) -> None:
    with pytest.raises(ibtpo.InvalidInput, match=r"resume=True\) goes on"):
        _ = run.policy


def test_runs_are_listed_with_the_latest_first(run: ibtpo.Run, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "second", {}, finished=False)
    assert [one.name for one in ibtpo.runs(tmp_path / "runs")] == ["second", "first"]
    assert ibtpo.Run(runs=tmp_path / "runs").name == "second"
    assert ibtpo.Run(run.path).name == "first"
    assert ibtpo.runs(tmp_path / "none") == []


def test_a_table_is_a_dictionary_of_columns_and_a_frame(run: ibtpo.Run) -> None:
    table = ibtpo.Table.of_rows([{"a": 1, "b": "x"}, {"a": 2.5, "c": None}])
    assert dict(table) == {"a": [1, 2.5], "b": ["x", None], "c": [None, None]}
    assert table.rows[1] == {"a": 2.5, "b": None, "c": None}
    assert pd.DataFrame(table).equals(table.to_pandas())
    assert run.metrics.to_pandas()["step"].tolist() == [1, 2, 3, 4]


def test_a_table_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *_: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("ibtpo.table.import_module", refuse)
    with pytest.raises(ibtpo.MissingPackage, match="pip install pandas"):
        ibtpo.Table(a=[1]).to_pandas()
    assert issubclass(ibtpo.MissingPackage, builtins.ImportError)


def test_a_table_shows_its_beginning_and_its_end() -> None:
    table = ibtpo.Table.of_rows({"row": number, "text": "<b>"} for number in range(1000))
    for shown in (repr(table), table._repr_html_()):
        assert "999" in shown
        assert "500" not in shown
        assert "1000 rows" in shown
    assert "<b>" not in table._repr_html_()
