"""Held-out accuracy of judged answers."""

import pytest

from services.learner.serving.evaluation import make_evaluation
from shared.errors import Unavailable
from tests.learner.synthetic import V0


def test_accuracy_is_the_mean_over_problems_that_were_judged() -> None:
    told = make_evaluation([[1.0, 0.0], [], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]], 3, V0, 2)
    assert (told.avg_at_k, told.pass_at_k, told.problems) == (0.5, 0.5, 4)
    assert told.standard_error == pytest.approx(0.408248 / 2, rel=1e-4)
    with pytest.raises(Unavailable, match=r"no answer of version 1\.0 was judged"):
        make_evaluation([[], []], 3, V0, 2)
