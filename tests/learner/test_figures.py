"""The figures of a run on disk: a line per step, dropped with an abandoned life, and the summary."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from services.learner.config import LearnerConfig
from services.learner.metrics import LearnerMetrics, StepResult
from services.learner.record.figures import measure_trees, step_figures, summary
from services.learner.record.metrics_log import MetricsLog
from services.learner.record.progress import Progress
from services.learner.record.state import SavedProgress
from services.learner.serving.evaluation import make_evaluation
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.errors import Unavailable
from shared.protocol.figures import Shown, StepFigures, figures_in
from shared.tree.draw import WeightVersion
from tests.learner.synthetic import V0, draws, scored, task

Configure = Callable[..., LearnerConfig]


def test_lines_of_an_abandoned_life_and_broken_ones_are_dropped(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.drop_after(0)
    for step in range(1, 6):
        metrics_log.append(StepFigures(step=step))
        if step % 2 == 0:
            metrics_log.append(make_evaluation([[1.0, 0.0]], step, V0, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "cut ha')
    MetricsLog(tmp_path).drop_after(3)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "avg_at_k" in line) for line in lines] == [(1, False), (2, False), (2, True), (3, False)]


def test_a_step_shows_means_over_all_its_trees() -> None:
    rng = random.Random(0)
    trees = [scored(task(number), draws(rng, 4, 0, rewards=(number % 2, 0.0))) for number in range(4)]
    figures, usage = measure_trees([BuiltTree.of(tree) for tree in trees])
    shown = step_figures(3, figures, usage, Update(learning_rate=0.1))
    assert (shown.step, shown.trees, shown.trajectories) == (3, 4, 16)
    assert (shown.eff_rate, shown.avg_rate) == (0.5, 0.25)
    assert shown.trajectories_per_1k_tokens == pytest.approx(16_000 / usage.generated_tokens)
    assert shown.loss is None


def test_a_summary_is_over_the_whole_run(configured: Configure) -> None:
    config = configured(total_steps=2, evaluation={"k": 8})
    progress = Progress(config, SavedProgress())
    progress.begin_generation(1)
    progress.add_evaluation(make_evaluation([[1.0, 0.0], [0.0, 0.0]], 0, V0, 8))
    rng = random.Random(0)
    for number in range(2):
        tree = scored(task(number), draws(rng, 4, 0, rewards=(float(number), 0.0)))
        progress.add_step(*measure_trees([BuiltTree.of(tree)]), is_updated=number == 1, seconds=2.0)
    assert progress.is_done
    assert progress.version == WeightVersion(1, 1)
    told = summary(config, progress.saved)
    assert (told.steps, told.trees, told.trajectories, told.eff_rate, told.avg_rate) == (2, 2, 8, 0.5, 0.25)
    assert told.tokens_per_second == told.generated_tokens / 4.0
    assert (told.avg_at_8_before, told.avg_at_8_after) == (0.25, None)
    progress.add_evaluation(make_evaluation([[1.0, 1.0], [0.0, 1.0]], 2, V0, 8))
    after = summary(config, progress.saved)
    assert (after.avg_at_8_after, after.pass_at_8_after) == (0.75, 1.0)


def test_a_budget_of_tokens_and_one_of_steps_end_a_run_whichever_comes_first(configured: Configure) -> None:
    config = configured(total_steps=10, max_generated_tokens=100, batch_size=4, max_staleness=1)
    progress = Progress(config, SavedProgress())
    assert (progress.share_done, progress.capacity, progress.eta_seconds) == (0.0, 8, None)
    tree = scored(task(), draws(random.Random(0), 4, 0))
    figures, usage = measure_trees([BuiltTree.of(tree)])
    for step in range(1, 10):
        progress.add_step(figures, usage, is_updated=True, seconds=1.0)
        assert progress.share_done == pytest.approx(max(step / 10, step * usage.generated_tokens / 100, 0.0), abs=1.0)
        if progress.is_done:
            break
    assert progress.step < 10
    late = Progress(config, SavedProgress(step=9))
    assert late.capacity == 4


def test_accuracy_is_the_mean_over_problems_that_were_judged() -> None:
    told = make_evaluation([[1.0, 0.0], [], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]], 3, V0, 2)
    assert (told.avg_at_k, told.pass_at_k, told.problems) == (0.5, 0.5, 4)
    assert told.standard_error == pytest.approx(0.408248 / 2, rel=1e-4)
    with pytest.raises(Unavailable, match=r"no answer of version 1\.0 was judged"):
        make_evaluation([[], []], 3, V0, 2)


def test_every_declared_series_has_the_value_of_the_step_and_its_help() -> None:
    metrics = LearnerMetrics()
    values = {name: number for number, name in enumerate(StepFigures.model_fields)}
    metrics.record_step(StepFigures(**values), StepResult.UPDATED)
    helps = {metric.name: metric.documentation for metric in metrics.registry.collect()}
    for where, suffix in ((Shown.GAUGE, ""), (Shown.COUNTER, "_total")):
        for name, figure in figures_in(StepFigures, where).items():
            assert metrics.registry.get_sample_value(f"ibtpo_learner_{name}{suffix}") == values[name], name
            assert helps[f"ibtpo_learner_{name}"] == figure.help


def test_the_engine_gap_is_shown_though_evaluations_alone_have_one() -> None:
    metrics = LearnerMetrics()
    metrics.record_step(StepFigures(step=1), StepResult.UPDATED)
    assert metrics.registry.get_sample_value("ibtpo_learner_engine_gap") is None
    metrics.record_evaluation(make_evaluation([[1.0, 0.0]], 1, V0, 2).model_copy(update={"engine_gap": 0.25}))
    assert metrics.registry.get_sample_value("ibtpo_learner_engine_gap") == 0.25
