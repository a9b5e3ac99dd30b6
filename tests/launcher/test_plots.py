"""The plots of a run: one for each chart that it has values for."""

from pathlib import Path

from services.launcher.display.plots import smoothed, write_plots
from services.launcher.runs.history import History
from shared.protocol.figures import Shown, StepFigures, charts, figures_in
from shared.protocol.status import RunState, RunStatus


def history(*steps: StepFigures) -> History:
    found = History()
    for figures in steps:
        found.add(RunStatus(run="mine", state=RunState.TRAINING, figures=figures))
    return found


def test_every_chart_of_the_table_becomes_a_picture(tmp_path: Path) -> None:
    values = dict.fromkeys(figures_in(StepFigures, Shown.PLOT), 0.5)
    steps = (StepFigures.model_validate(values | {"step": step, "trees": 8}) for step in (1, 2, 3))
    plots = write_plots(history(*steps), tmp_path)
    assert [caption for caption, _ in plots] == [chart.description for chart in charts(Shown.PLOT)]
    assert {path for _, path in plots} == set(tmp_path.iterdir())
    assert all(path.stat().st_size > 1000 for _, path in plots)


def test_a_figure_without_values_has_no_picture(tmp_path: Path) -> None:
    plots = write_plots(history(StepFigures(step=1, trees=8, entropy=0.2)), tmp_path)
    assert [path.stem for _, path in plots] == ["entropy", "time_of_a_step"]


def test_a_run_without_steps_has_no_pictures(tmp_path: Path) -> None:
    assert write_plots(History(), tmp_path) == []


def test_the_running_mean_ends_at_each_value() -> None:
    assert smoothed([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]
    assert smoothed([1.0, 3.0], 1) == [1.0, 3.0]
