"""The plots of a run: one for each chart that it has values for."""

from pathlib import Path

from services.launcher.display.plots import smoothed, write_plots
from services.launcher.runs.history import History
from shared.protocol.figures import Shown, StepFigures, charts, figures_in
from shared.protocol.status import Evaluation, RunState, RunStatus, SetAccuracy
from shared.tree.draw import WeightVersion


def history(*steps: StepFigures) -> History:
    found = History()
    for figures in steps:
        found.add(RunStatus(run="mine", state=RunState.TRAINING, figures=figures))
    return found


def test_every_chart_of_the_table_becomes_a_picture(tmp_path: Path) -> None:
    values = dict.fromkeys(figures_in(StepFigures, Shown.PLOT), 1.0)
    steps = (StepFigures.model_validate(values | {"step": step, "trees": 8}) for step in (1, 2, 3))
    plots = write_plots(history(*steps), tmp_path)
    assert [caption for caption, _ in plots] == [chart.description for chart in charts(Shown.PLOT)]
    assert {path for _, path in plots} == set(tmp_path.iterdir())
    assert all(path.stat().st_size > 1000 for _, path in plots)


def test_a_figure_without_values_has_no_picture(tmp_path: Path) -> None:
    plots = write_plots(history(StepFigures(step=1, trees=8, entropy=0.2)), tmp_path)
    assert [path.stem for _, path in plots] == ["entropy", "time_of_an_update", "time_of_a_step"]


def test_a_run_without_steps_has_no_pictures(tmp_path: Path) -> None:
    assert write_plots(History(), tmp_path) == []


def test_the_name_of_a_held_out_set_is_no_formula(tmp_path: Path) -> None:
    measured = {"avg_at_k": 0.5, "pass_at_k": 0.75, "problems": 100, "standard_error": 0.05}
    sets = tuple(SetAccuracy(name=name, k=8, **measured) for name in (r"$\frac$", "b"))
    evaluation = Evaluation(step=1, version=WeightVersion(1, 1), k=8, sets=sets, **measured)
    found = History()
    found.add(RunStatus(run="mine", state=RunState.TRAINING, evaluations=(evaluation,)))
    assert [path.stem for _, path in write_plots(found, tmp_path)] == ["held-out_accuracy", "held-out_accuracy_by_set"]


def test_the_running_mean_ends_at_each_value() -> None:
    assert smoothed([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]
    assert smoothed([1.0, 3.0], 1) == [1.0, 3.0]
