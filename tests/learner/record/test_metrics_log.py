"""metrics.jsonl: a line per step and evaluation, dropped where a resumed run writes it again."""

import json
from pathlib import Path

from services.learner.held_out.measure import average_sets
from services.learner.record.metrics_log import MetricsLog
from shared.protocol.figures import StepFigures
from shared.protocol.status import Evaluation
from tests.learner.evaluations import make_evaluation
from tests.learner.synthetic import V0


def test_lines_after_the_checkpoint_and_broken_ones_are_dropped(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.drop_after(0, ())
    for step in range(1, 6):
        metrics_log.append(StepFigures(step=step))
        if step % 2 == 0:
            metrics_log.append(make_evaluation({"held_out": [[1.0, 0.0]]}, step, V0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "cut ha')
    MetricsLog(tmp_path).drop_after(3, {2})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "avg_at_k" in line) for line in lines] == [(1, False), (2, False), (2, True), (3, False)]


def test_an_evaluation_that_no_checkpoint_has_is_dropped_as_it_will_be_made_again(tmp_path: Path) -> None:
    MetricsLog(tmp_path).append(make_evaluation({"held_out": [[1.0, 0.0]]}, 2, V0, 2))
    MetricsLog(tmp_path).drop_after(2, set())
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_sets_that_differ_in_k_are_read_again(tmp_path: Path) -> None:
    (one,), (two,) = (make_evaluation({name: [[1.0] * k]}, 2, V0, k).sets for name, k in (("a", 2), ("b", 4)))
    evaluation = average_sets([one, two], 2, V0)
    assert Evaluation.model_validate(evaluation.flat()) == evaluation
    assert evaluation.k is None


def test_an_evaluation_is_one_level_of_stable_names(tmp_path: Path) -> None:
    MetricsLog(tmp_path).append(make_evaluation({"gsm8k": [[1.0, 0.0]], "a.b": [[1.0, 1.0]]}, 2, V0, 2))
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row["avg_at_k"] == 0.75
    assert row["held_out/gsm8k/avg_at_k"] == 0.5
    assert row["held_out/a.b/pass_at_1"] == 1.0
    assert row["held_out/gsm8k/truncated_share"] == 0.0
    assert all(value is not None and not isinstance(value, list) for value in row.values())
    assert Evaluation.model_validate(row) == make_evaluation({"gsm8k": [[1.0, 0.0]], "a.b": [[1.0, 1.0]]}, 2, V0, 2)
