"""metrics.jsonl: a line per step and evaluation, dropped where a resumed run writes it again."""

import json
from pathlib import Path

from services.learner.record.metrics_log import MetricsLog
from services.learner.serving.evaluation import make_evaluation
from shared.protocol.figures import StepFigures
from tests.learner.synthetic import V0


def test_lines_after_the_checkpoint_and_broken_ones_are_dropped(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.drop_after(0)
    for step in range(1, 6):
        metrics_log.append(StepFigures(step=step))
        if step % 2 == 0:
            metrics_log.append(make_evaluation({"held_out.jsonl": [[1.0, 0.0]]}, step, V0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "cut ha')
    MetricsLog(tmp_path).drop_after(3)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "avg_at_k" in line) for line in lines] == [(1, False), (2, False), (2, True), (3, False)]
