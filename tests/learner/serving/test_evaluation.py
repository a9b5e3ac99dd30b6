"""Held-out accuracy of judged answers."""

import pytest

from services.learner.serving.evaluation import make_evaluation
from shared.errors import Unavailable
from tests.learner.synthetic import V0


def test_accuracy_is_the_mean_over_problems_that_were_judged() -> None:
    told = make_evaluation({"held_out.jsonl": [[1.0, 0.0], [], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]}, 3, V0, 2)
    assert (told.avg_at_k, told.pass_at_k, told.problems) == (0.5, 0.5, 4)
    assert told.standard_error == pytest.approx(0.408248 / 2, rel=1e-4)
    with pytest.raises(Unavailable, match=r"no answer of version 1\.0 was judged"):
        make_evaluation({"held_out.jsonl": [[], []]}, 3, V0, 2)


def test_each_file_has_its_own_accuracy() -> None:
    easy, hard = [[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], []], [[0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5]]
    told = make_evaluation({"a/easy.jsonl": easy, "b/hard.jsonl": hard, "late.jsonl": []}, 3, V0, 4)
    assert (told.avg_at_k, told.pass_at_k, told.problems) == (0.3125, 0.5, 4), "(0.75 + 0.25 + 0 + 0.25) / 4"
    first, second = told.files
    assert (first.file, first.avg_at_k, first.pass_at_k, first.problems) == ("easy.jsonl", 0.5, 1.0, 2)
    assert (second.file, second.avg_at_k, second.pass_at_k, second.problems) == ("hard.jsonl", 0.125, 0.0, 2)
    assert (first.standard_error, second.standard_error) == pytest.approx((0.25, 0.125)), "half of what they differ"


def test_files_of_one_name_are_told_apart_by_their_paths() -> None:
    told = make_evaluation({"a/test.jsonl": [[1.0]], "b/test.jsonl": [[0.0]]}, 0, V0, 1)
    assert [one.file for one in told.files] == ["a/test.jsonl", "b/test.jsonl"]
