"""Trees that would break the learner are refused, with the reason."""

import random
from dataclasses import replace
from typing import Any

import pytest

from services.learner.queue.validation import reject_reason
from tests.learner.policies import VOCAB_SIZE
from tests.learner.synthetic import draws, scored, task


def reason_for(**changes: Any) -> str | None:
    """Of a tree whose last draw is changed."""
    first, last = draws(random.Random(0), 2, 0)
    return reject_reason(scored(task(), (first, replace(last, **changes))), VOCAB_SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_any_tree_of_an_engine_is_sound(seed: int) -> None:
    assert reject_reason(scored(task(), draws(random.Random(seed), 4, 4, max_tokens=4)), VOCAB_SIZE) is None


def test_a_token_outside_the_vocabulary_is_named() -> None:
    last = draws(random.Random(0), 2, 0)[1]
    found = reason_for(token_ids=(VOCAB_SIZE, *last.token_ids[1:]))
    assert found == f"draw 1: token {VOCAB_SIZE} is outside the vocabulary of {VOCAB_SIZE}"


@pytest.mark.parametrize("logprob", [3e38, 1.0, -3e38, -1000.0])
def test_a_number_that_no_probability_has_as_its_logarithm_is_refused(logprob: float) -> None:
    last = draws(random.Random(0), 2, 0)[1]
    changed = (logprob, *last.logprobs[1:])
    assert "no log-probability" in str(reason_for(logprobs=changed))
    assert "no log-probability" in str(reason_for(sampling_logprobs=changed))


def test_answers_over_the_limit_and_draws_over_the_samplers_are_refused() -> None:
    assert "over the 16 of the task" in str(
        reject_reason(scored(task(), draws(random.Random(3), 8, 0, max_tokens=40)), VOCAB_SIZE)
    )
    assert (
        reject_reason(scored(task(), draws(random.Random(0), 9, 0)), VOCAB_SIZE) == "9 draws, over the 8 of the sampler"
    )
