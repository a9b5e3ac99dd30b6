"""A run's figures over its steps, and sparklines of them."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.launcher.display.sparkline import BARS, sparkline
from services.launcher.runs.history import History, accuracies_by_set
from shared.protocol.figures import StepFigures
from shared.protocol.status import Evaluation, RunState, RunStatus
from shared.tree.draw import WeightVersion
from tests.learner.evaluations import make_evaluation


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


def test_evaluations_of_earlier_releases_are_read_with_their_files_as_sets(tmp_path: Path) -> None:
    figures = {"avg_at_k": 0.25, "pass_at_k": 0.5, "problems": 4, "standard_error": 0.1}
    version = {"generation": 1, "number": 0, "origin": "ab"}
    line = {"step": 0, "version": version, "k": 8, "files": [{"file": "easy.jsonl", **figures}], "engine_gap": 0.01}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(figures | line) + "\n")
    (read,) = History.read(tmp_path / "metrics.jsonl").evaluations
    (one,) = read.sets
    assert (one.name, one.k, one.avg_at_k, one.maj_at_k, read.engine_gap) == ("easy", 8, 0.25, None, 0.01)


def test_a_set_has_its_own_steps_and_the_average_those_at_which_all_were_measured() -> None:
    both = {"often": [[1.0, 0.0]], "rare": [[0.0, 0.0]]}
    often = make_evaluation({"often": [[1.0, 1.0]]}, 5, WeightVersion(1, 5), 2).model_copy(update={"is_partial": True})
    evaluations = [
        make_evaluation(both, 0, WeightVersion(1, 0), 2),
        often,
        make_evaluation(both, 10, WeightVersion(1, 10), 2),
    ]
    steps = {series.label: series.steps for series in accuracies_by_set(evaluations)}
    assert steps == {"average": (0, 10), "often": (0, 5, 10), "rare": (0, 10)}
