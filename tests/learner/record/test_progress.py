"""How far a run is, and when it is done."""

import random

import pytest

from services.learner.record.figures import measure_trees
from services.learner.record.progress import Progress
from services.learner.record.state import SavedProgress
from services.learner.training.trajectories import BuiltTree
from tests.learner.conftest import Configure
from tests.learner.synthetic import draws, scored, task


def test_a_budget_of_tokens_and_one_of_steps_end_a_run_whichever_comes_first(configure: Configure) -> None:
    config = configure(total_steps=10, max_generated_tokens=100, batch_size=4, max_staleness=1)
    progress = Progress(config, SavedProgress())
    assert (progress.share_done, progress.capacity(), progress.eta_seconds) == (0.0, 8, None)
    tree = scored(task(), draws(random.Random(0), 4, 0))
    figures, usage = measure_trees([BuiltTree.of(tree)])
    for step in range(1, 10):
        progress.add_step(figures, usage, is_updated=True, seconds=1.0)
        assert progress.share_done == pytest.approx(max(step / 10, step * usage.generated_tokens / 100, 0.0), abs=1.0)
        if progress.is_done:
            break
    assert progress.step < 10
    late = Progress(config, SavedProgress(step=9))
    assert late.capacity() == 4


def test_each_update_that_replicas_lag_behind_leaves_room_for_a_batch_less(configure: Configure) -> None:
    progress = Progress(configure(total_steps=10, batch_size=4, max_staleness=2), SavedProgress())
    assert [progress.capacity(lag) for lag in range(5)] == [12, 8, 4, 4, 4]
