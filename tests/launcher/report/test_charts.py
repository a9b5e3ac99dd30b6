"""The charts of a report: what they draw, over which stretch, with which errors."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from services.launcher.report.charts import accuracy_charts, figure_charts
from services.launcher.report.curves import Axis, accuracy_curve, interpolate, mean_curve, positions, smoothed
from services.launcher.report.groups import read_groups
from services.launcher.report.page import write_report
from services.launcher.report.svg_chart import Line, Point, Scale, nice_step, render_chart, thinned
from services.launcher.runs.history import AccuracySeries, History
from services.launcher.runs.run_dir import RunDirectory
from shared.protocol.figures import Shown, StepFigures, charts, figures_in
from shared.protocol.status import AccuracyFigures, Evaluation, SetAccuracy
from shared.tree.draw import WeightVersion
from tests.launcher.report.folders import write_run

HALF = [[1.0, 0.0], [1.0, 0.0]]


def steps_of(run: RunDirectory, *steps: StepFigures) -> History:
    run.root.mkdir(parents=True)
    run.metrics.write_text("".join(f"{one.model_dump_json()}\n" for one in steps))
    return History.read(run.metrics)


def test_every_chart_of_the_table_is_drawn_and_kept_as_a_file(tmp_path: Path) -> None:
    values = dict.fromkeys(figures_in(StepFigures, Shown.PLOT), 1.0)
    run = RunDirectory(tmp_path / "mine")
    steps_of(run, *(StepFigures.model_validate(values | {"step": step, "trees": 8}) for step in (1, 2, 3)))
    (group,) = read_groups(tmp_path, ["mine"])
    assert [view.title for view in figure_charts([group])] == [chart.title for chart in charts(Shown.PLOT)]
    write_report(run)
    files = sorted(run.plots.iterdir())
    assert len(files) == len(list(charts(Shown.PLOT)))
    for file in files:
        assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_a_figure_without_values_has_no_chart(tmp_path: Path) -> None:
    steps_of(RunDirectory(tmp_path / "mine"), StepFigures(step=1, trees=8, entropy=0.2))
    views = [view.title for view in figure_charts(read_groups(tmp_path, ["mine"]))]
    assert views == ["Entropy", "Time of an update", "Time of a step"]


def test_of_several_runs_each_figure_has_its_own_chart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, {0: HALF}, lr=name)
    views = list(figure_charts(read_groups(tmp_path, ["a", "b"])))
    assert "Reward: root value" in [view.title for view in views]
    for view in views:
        assert [label for _, label in view.legend] == ["a", "b"]


def test_the_mean_over_runs_reaches_as_far_as_all_have_got() -> None:
    first = [Point(0, 0.0), Point(2, 2.0), Point(4, 4.0)]
    second = [Point(0, 2.0), Point(3, 2.0)]
    assert mean_curve([first, second]) == (
        Point(0, 1.0, 1.0),
        Point(2, 2.0, 0.0),
        Point(3, 2.5, 0.5),
    )
    assert mean_curve([first, []]) == tuple(first)
    assert mean_curve([]) == mean_curve([[], []]) == ()
    assert mean_curve([[Point(0, 1.0)], [Point(5, 1.0)]]) == ()
    assert [interpolate(second, x) for x in (-1, 1.5, 9)] == [2.0, 2.0, 2.0]


def test_curves_run_against_steps_tokens_or_time(tmp_path: Path) -> None:
    def step(number: int, **figures: float) -> StepFigures:
        return StepFigures(step=number, trees=1, generated_tokens=100, update_seconds=2, intake_seconds=1, **figures)

    old = steps_of(RunDirectory(tmp_path / "old"), step(1), step(2))
    new = steps_of(RunDirectory(tmp_path / "new"), step(1, run_seconds=10.0), step(2, run_seconds=30.0))
    assert positions(old, Axis.STEP) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert positions(old, Axis.TOKENS) == {0: 0.0, 1: 100.0, 2: 200.0}
    assert positions(old, Axis.TIME) == {0: 0.0, 1: 3.0, 2: 6.0}
    assert positions(new, Axis.TIME) == {0: 0.0, 1: 10.0, 2: 30.0}


def test_a_single_runs_accuracy_has_its_error_over_problems(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {0: [[0.0, 0.0], [1.0, 0.0]], 4: HALF})
    (view,) = accuracy_charts(read_groups(tmp_path, ["a"]))
    assert dict(view.rows)["avg@k"] == "0.250 ± 0.250  0.500 ± 0.000"
    assert [axis for axis, _ in view.svgs] == ["step", "tokens", "time"]


@pytest.mark.parametrize(("measure", "error"), [("avg_at_k", 0.1), ("pass_at_k", 0.2), ("maj_at_k", 0.3)])
def test_each_measure_of_accuracy_has_its_own_error(measure: str, error: float) -> None:
    figures = AccuracyFigures(
        problems=4, avg_at_k=0.5, standard_error=0.1, pass_at_k=0.5, pass_error=0.2, maj_at_k=0.5, maj_error=0.3
    )
    series = AccuracySeries("a", 2, (0,), (figures,))
    assert accuracy_curve(History(), series, measure, Axis.STEP) == (Point(0, 0.5, error),)


def test_majorities_are_drawn_where_they_are_known(tmp_path: Path) -> None:
    known = {"avg_at_k": 0.5, "standard_error": 0.125, "maj_at_k": 0.75, "maj_error": 0.25, "problems": 2, "k": 2}
    version = WeightVersion(1, 0)
    one = SetAccuracy(name="a", **known)
    lines = [Evaluation(step=step, version=version, sets=(one,), **known).flat() for step in (0, 4)]
    run = RunDirectory(tmp_path / "a")
    run.make()
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (view,) = accuracy_charts(read_groups(tmp_path, ["a"]))
    assert dict(view.rows) == {"avg@k": "0.500 ± 0.125  0.500 ± 0.125", "maj@k": "0.750 ± 0.250  0.750 ± 0.250"}
    assert "– → –</td>" in (page := write_report(run).read_text())
    assert "0.750 → 0.750" in page


@pytest.mark.parametrize("points", [[Point(0, 0.0)], [Point(3, 7.0), Point(3, 7.0)], [Point(0, 1e9), Point(1, -1e-9)]])
def test_any_values_can_be_drawn(points: list[Point]) -> None:
    svg = render_chart([Line("<a>", tuple(points), 6, marked=True)], '"<x>"', "step", "y", "{:g}".format)
    ElementTree.fromstring(svg)
    assert "nan" not in svg


def test_long_curves_are_thinned_without_losing_their_height() -> None:
    line = thinned(Line("a", tuple(Point(float(x), 1.0, 0.5) for x in range(10_000)), 0))
    assert len(line.points) <= 240
    assert {(point.y, point.error) for point in line.points} == {(1.0, 0.5)}


def test_ticks_are_round() -> None:
    assert [nice_step(rough) for rough in (0.11, 0.2, 3.0, 70.0)] == [0.2, 0.2, 5.0, 100.0]
    assert Scale(0.0, 10.0, 0, 1).ticks == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_the_running_mean_ends_at_each_value() -> None:
    points = [Point(x, float(x % 2)) for x in range(24)]
    assert [point.y for point in smoothed(points)][:3] == [0.0, 0.5, 0.5]
    assert smoothed([Point(1, 5.0)]) == (Point(1, 5.0),)


def test_charts_follow_the_page_into_the_dark(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {0: HALF})
    page = write_report(run).read_text()
    assert re.search(r"@media ?\(prefers-color-scheme: ?dark\)", page)
