"""What a run says when its steps come to nothing, and when it gives up."""

import pytest

from services.learner.metrics import StepResult
from services.learner.record.step_watch import StepWatch, warn_of_run
from shared.errors import InvalidInput
from shared.protocol.figures import StepFigures


def test_steps_that_change_nothing_are_said_and_end_the_run_after_a_stated_number() -> None:
    watch = StepWatch(8)
    for result in [StepResult.NO_SIGNAL] * 3 + [StepResult.REFUSED] * 4:
        watch.add(StepFigures(avg_rate=0.0), result)
        watch.require_progress()
    assert "the last 7 steps changed nothing: 4 had gradients that are not finite, 3 no tree" in watch.warning
    watch.add(StepFigures(avg_rate=1.0), StepResult.NO_SIGNAL)
    with pytest.raises(InvalidInput, match=r"the last 8 steps .*mean reward 1\.00.*learner\.max_idle_steps=8"):
        watch.require_progress()


def test_an_update_begins_the_count_again_and_a_few_idle_steps_are_nothing_to_say() -> None:
    watch = StepWatch(6)
    for result in [*[StepResult.REFUSED] * 4, StepResult.UPDATED] * 3:
        watch.add(StepFigures(), result)
        watch.require_progress()
        assert watch.warning == ""


@pytest.mark.parametrize(("share", "is_said"), [(None, False), (0.2, False), (0.21, True)])
def test_answers_that_are_cut_are_said_with_the_remedy(share: float | None, is_said: bool) -> None:
    watch = StepWatch(0)
    watch.add(StepFigures(truncated_share=share), StepResult.UPDATED)
    assert ("growth.judge_truncated=true" in watch.warning) == is_said
    assert bool(warn_of_run(3, 3, share)) == is_said


def test_a_run_without_an_update_says_so_at_its_end() -> None:
    assert "none of 4 steps changed the policy" in warn_of_run(4, 0, None)
    assert warn_of_run(4, 1, None) == warn_of_run(0, 0, None) == ""
