"""What the terminal says when a run has finished."""

import io
import json
from pathlib import Path

from rich.console import Console

from services.launcher.display.run_summary import render_summary
from services.launcher.runs.run_dir import RunDirectory
from services.learner.record.metrics_log import MetricsLog
from services.learner.record.tracking import TrackingRecord, record_path
from shared.protocol.figures import RunSummary, Shown, figures_in
from shared.protocol.status import Evaluation
from shared.tree.draw import WeightVersion


def test_a_finished_run_shows_the_figures_declared_for_its_end_and_where_its_files_are(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    run.make()
    summary = {"sampler": "ib", "seed": 3, **dict.fromkeys(figures_in(RunSummary), 0.375), "ib_score": None}
    run.summary.write_text(json.dumps(summary | {"wall_seconds": 65.0}))
    console = Console(file=io.StringIO(), width=200)
    console.print(render_summary(run))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "mine · finished in 1:05" in text
    assert str(run.report) in text
    for name, figure in figures_in(RunSummary, Shown.OUTCOME).items():
        assert (figure.title in text) == (name != "ib_score"), "a figure without a value has no row"


def test_the_end_says_where_trackers_show_the_run_and_how_one_gets_the_rest(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    run.make()
    for tracker, record in (
        ("tensorboard", TrackingRecord(id="t", url="somewhere")),
        ("wandb", TrackingRecord(id="w", url="https://wandb.test/w")),
        ("mlflow", TrackingRecord(problem="ConnectionError: [no] route")),
    ):
        record.write(record_path(run.root, tracker))
    console = Console(file=io.StringIO(), width=400)
    console.print(render_summary(run))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"tensorboard --logdir {tmp_path}" in text
    assert "https://wandb.test/w" in text
    assert f"has not all of it (ConnectionError: [no] route); `ibtpo track {run.root}` sends the rest" in text


def test_a_summary_that_cannot_be_read_is_no_hindrance(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    run.make()
    for text in ("{", "[]"):
        run.summary.write_text(text)
        assert run.read_summary() == {}


def test_what_was_measured_once_has_not_changed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "mine")
    run.make()
    measured = {"avg_at_k": 0.25, "pass_at_k": 0.5, "problems": 24, "standard_error": 0.05, "k": 8}
    MetricsLog(run.root).append(Evaluation.model_validate(measured | {"step": 0, "version": WeightVersion(1, 0)}))
    console = Console(file=io.StringIO(), width=80)
    console.print(render_summary(run))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "24 problems, at step 0 alone" in text
    assert "0.250 ± 0.050" in text
    assert "→" not in text
