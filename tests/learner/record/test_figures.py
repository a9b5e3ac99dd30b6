"""The figures of a step and of a whole run."""

import json
import random

import pytest

from services.learner.metrics import Phase
from services.learner.record.figures import measure_trees, sampling_figures, source_commit, step_figures, summary
from services.learner.record.progress import Progress
from services.learner.record.state import SavedProgress
from services.learner.training.trajectories import BuiltTree
from services.learner.training.update import Update
from shared.tree.draw import WeightVersion
from tests.learner.conftest import Configure
from tests.learner.evaluations import make_evaluation
from tests.learner.synthetic import V0, draws, scored, task


def test_a_step_shows_means_over_all_its_trees() -> None:
    rng = random.Random(0)
    trees = [scored(task(number), draws(rng, 4, 0, rewards=(number % 2, 0.0))) for number in range(4)]
    figures, usage = measure_trees([BuiltTree.of(tree) for tree in trees])
    seconds = {Phase.INTAKE: 1.0, Phase.UPDATE: 2.0, Phase.PUBLISH: 1.0, Phase.CHECKPOINT: 0.5}
    update, aged = (
        Update(applied=1, learning_rate=0.1, trained_tokens=50, pack_seconds=0.25),
        [(tree, 1) for tree in trees],
    )
    shown = step_figures(3, sampling_figures(figures, usage, 4.0), update, aged, seconds)
    assert (shown.step, shown.trees, shown.trajectories) == (3, 4, 16)
    assert (shown.staleness, shown.update_seconds, shown.learning_rate) == (1.0, 2.0, 0.1)
    lengths = sorted(draw.end for tree in trees for draw in tree.draws)
    assert (shown.answer_tokens_p95, shown.answer_tokens_max) == (lengths[15], lengths[15])
    assert (shown.answer_tokens, shown.truncated_share) == (sum(lengths) / 16, 0.0)
    assert shown.tokens_per_second == usage.generated_tokens / 4.0
    assert (shown.trained_tokens_per_second, shown.pack_seconds, shown.checkpoint_seconds) == (25.0, 0.25, 0.5)
    assert (shown.eff_rate, shown.avg_rate) == (0.5, 0.25)
    assert (shown.all_right_share, shown.all_wrong_share) == (0.0, 0.5)
    assert shown.trajectories_per_1k_tokens == pytest.approx(16_000 / usage.generated_tokens)
    assert shown.loss is None


@pytest.mark.parametrize("k", [8, 32])
def test_a_summary_is_over_the_whole_run(configure: Configure, k: int) -> None:
    config = configure(total_steps=2, evaluation={"k": k})
    progress = Progress(config, SavedProgress())
    progress.begin_generation(1, "a1")
    progress.add_evaluation(make_evaluation({"held_out": [[1.0, 0.0], [0.0, 0.0]]}, 0, V0, k))
    rng = random.Random(0)
    for number in range(2):
        tree = scored(task(number), draws(rng, 4, 0, rewards=(float(number), 0.0)))
        progress.add_step(*measure_trees([BuiltTree.of(tree)]), is_updated=number == 1, seconds=2.0)
    assert progress.is_done
    assert progress.version == WeightVersion(1, 1, "a1")
    told = summary(config, progress.saved)
    assert (told.steps, told.trees, told.trajectories, told.eff_rate, told.avg_rate) == (2, 2, 8, 0.5, 0.25)
    assert told.tokens_per_second == told.generated_tokens / 4.0
    assert (told.avg_at_k_before, told.avg_at_k_after) == (0.25, None)
    progress.add_evaluation(make_evaluation({"held_out": [[1.0, 1.0], [0.0, 1.0]]}, 2, V0, k))
    after = summary(config, progress.saved)
    assert (after.avg_at_k_after, after.pass_at_k_after) == (0.75, 1.0)
    assert (after.k, after.run, after.model, after.updates) == (k, "run", str(config.model), 1)
    assert (after.lr, after.standard_error_after) == (config.optimizer.lr, 0.25)
    assert after.method == "ibtpo"
    assert after.data == tuple(map(str, config.data))
    assert after.commit == source_commit()
    (one,) = after.sets
    assert (one.name, one.k, one.problems, one.avg_at_k_before, one.avg_at_k_after) == ("held_out", k, 2, 0.25, 0.75)
    assert (one.standard_error_before, one.pass_at_k_before, one.pass_at_k_after) == (0.25, 0.5, 1.0)
    assert json.loads(after.advantage)["kind"] == "ibtpo"


def test_accuracies_of_another_k_are_not_compared(configure: Configure) -> None:
    progress = Progress(configure(total_steps=2, evaluation={"k": 2}), SavedProgress())
    progress.add_evaluation(make_evaluation({"a": [[1.0] * 8]}, 0, V0, 8))
    assert summary(configure(total_steps=2, evaluation={"k": 2}), progress.saved).avg_at_k_before is None
