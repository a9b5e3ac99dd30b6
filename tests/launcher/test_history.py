"""A run's figures over its steps, and sparklines of them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.launcher.display.sparkline import BARS, sparkline
from services.launcher.runs.history import History
from shared.protocol.figures import StepFigures
from shared.protocol.status import Evaluation, RunState, RunStatus
from shared.tree.draw import WeightVersion


def evaluation(step: int, accuracy: float) -> Evaluation:
    return Evaluation(
        step=step,
        version=WeightVersion(1, step),
        k=8,
        avg_at_k=accuracy,
        pass_at_k=accuracy,
        problems=10,
        standard_error=0.01,
    )


def test_steps_and_evaluations_are_read_in_order(tmp_path: Path) -> None:
    lines = [StepFigures(step=2, trees=4, eff_rate=0.5), evaluation(0, 0.25), StepFigures(step=1, trees=4)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    history = History.read(tmp_path / "metrics.jsonl")
    assert [one.step for one in history.figures] == [1, 2]
    assert history.series("eff_rate") == ((2, 0.5),)
    assert [one.avg_at_k for one in history.evaluations] == [0.25]


def test_a_line_that_is_incomplete_is_ignored(tmp_path: Path) -> None:
    whole = StepFigures(step=1, trees=4).model_dump_json()
    (tmp_path / "metrics.jsonl").write_text(f'{whole}\n[]\nnull\n{{"other": 1}}\n{whole[:20]}')
    assert len(History.read(tmp_path / "metrics.jsonl").figures) == 1


def test_a_run_without_metrics_has_an_empty_history(tmp_path: Path) -> None:
    assert History.read(tmp_path / "metrics.jsonl").figures == ()


def test_later_figures_of_a_step_replace_earlier_ones() -> None:
    history = History()
    for rate in (0.25, 0.5):
        figures = StepFigures(step=3, trees=4, eff_rate=rate)
        history.add(RunStatus(run="mine", state=RunState.TRAINING, figures=figures))
    assert history.series("eff_rate") == ((3, 0.5),)


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(0, 40))
def test_a_sparkline_fits_and_has_one_column_per_value_at_most(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set(BARS)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BARS
    assert len(set(sparkline([2.0] * 5, 5))) == 1
