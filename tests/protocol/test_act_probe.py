"""The act-probe's rule, its readings, and how far apart two may be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.act_probe import (
    FLOAT32_TOLERANCE,
    MOST_TOKENS,
    REROUNDED_TOLERANCE,
    ROUNDED_TOLERANCE,
    ActReading,
    act_distance,
    find_fault,
    probe_tokens,
)
from shared.tree.draw import WeightVersion

VERSION = WeightVersion(1, 4, "beef")


def reading(
    *logprobs: float, version: WeightVersion = VERSION, vocab_size: int = 9, is_float32: bool = False
) -> ActReading:
    return ActReading.of(version, vocab_size, logprobs, is_float32=is_float32)


@given(vocab_size=st.integers(1, 300_000), context_length=st.integers(1, 200))
def test_the_sequence_follows_from_the_vocabulary_and_fits_the_context(vocab_size: int, context_length: int) -> None:
    token_ids = probe_tokens(vocab_size, context_length)
    assert len(token_ids) == min(MOST_TOKENS, context_length - 1)
    assert all(0 <= token < vocab_size for token in token_ids)
    assert token_ids == probe_tokens(vocab_size, 4096)[: len(token_ids)]


def test_the_sequence_is_the_same_in_every_release() -> None:
    assert probe_tokens(49_152, 4) == (26_717, 39_265, 44_939)
    assert len(set(probe_tokens(49_152, 4096))) == MOST_TOKENS


def test_a_reading_survives_its_way_and_may_be_brief() -> None:
    found = reading(-1.0, -2.00004, -6.0)
    assert ActReading.model_validate_json(found.model_dump_json()) == found
    assert (found.logprob, found.brief().logprobs) == (-3.0, ())


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_weights_whose_log_probabilities_are_not_finite_do_not_act(bad: float) -> None:
    served = ActReading.model_validate_json(reading(-1.0, bad).model_dump_json())
    assert served.logprob is None
    assert find_fault(reading(-1.0, -2.0), served).endswith("log-probabilities of the act-probe are not finite")
    assert find_fault(served, reading(-1.0, -2.0)) == ""  # the learner's own are not: nothing to compare with


def test_the_distance_sees_what_the_mean_does_not() -> None:
    published, served = reading(-1.0, -2.0), reading(-2.0, -1.0)
    assert served.logprob == published.logprob
    assert act_distance(published, served) == 1.0
    assert find_fault(published, served) == (
        "weights 1.4-beef do not act as published: 1 nats from the learner's on the act-probe, of which rounding "
        "explains 0.25 (mean -1.500 for -1.500)"
    )


@pytest.mark.parametrize(
    ("is_float32", "tolerance", "allowed"),
    [
        ((True, True), None, FLOAT32_TOLERANCE),
        ((False, False), None, ROUNDED_TOLERANCE),
        ((False, True), None, ROUNDED_TOLERANCE),
        ((True, False), None, REROUNDED_TOLERANCE),
        ((True, True), 2.0, 2.0),
    ],
)
def test_as_far_as_rounding_explains_they_act(
    is_float32: tuple[bool, bool], tolerance: float | None, allowed: float
) -> None:
    published = reading(-3.0, -4.0, is_float32=is_float32[0])
    for share, is_faulty in ((0.9, False), (1.1, True)):
        served = reading(-3.0 - share * allowed, -4.0 + share * allowed, is_float32=is_float32[1])
        assert bool(find_fault(published, served, tolerance)) is is_faulty


def test_what_cannot_be_compared_is_no_fault() -> None:
    published = reading(-1.0, -2.0)
    others = (reading(-9.0, -9.0, version=WeightVersion(1, 5, "beef")), reading(-9.0, -9.0, vocab_size=8))
    for other in (*others, reading(-9.0, -9.0).brief()):
        assert find_fault(published, other) == ""
    assert find_fault(published, reading(-1.0)) == ""  # of a shorter context: what both scored agrees
