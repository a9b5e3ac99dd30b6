"""A draw holds together, or is refused with the values that do not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion, trajectory
from tests.tree.records import EOS, VERSION, A, B, draw, quick, records

NEWER = WeightVersion(0, 2)
WHOLE = draw([A, B, EOS])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"token_ids": ()}, "at least one token"),
        ({"logprobs": (-1.0,)}, "3 tokens but 1 logprobs"),
        ({"sampling_logprobs": (-1.0,)}, "3 tokens but 1 sampling_logprobs"),
        ({"parent": 0}, "cut 0"),
        ({"cut": 1}, "cut 0"),
        ({"step_ends": ()}, "step_ends ascend"),
        ({"step_ends": (2,)}, "step_ends ascend"),
        ({"step_ends": (2, 2, 3)}, "step_ends ascend"),
        ({"step_ends": (0, 3)}, "step_ends ascend"),
        ({"spans": ()}, "spans partition"),
        ({"spans": (VersionSpan(VERSION, 0, 2),)}, "spans partition"),
        ({"spans": (VersionSpan(VERSION, 0, 2), VersionSpan(NEWER, 1, 3))}, "spans partition"),
        *(({"given": spans}, "given spans ascend") for spans in [((1, 1),), ((2, 4),), ((-1, 1),), ((1, 3), (0, 1))]),
        ({"reward": 1.5}, "a reward lies in"),
    ],
)
def test_what_does_not_hold_together_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(WHOLE, **wrong)


def test_the_oldest_weights_say_how_stale_a_draw_is() -> None:
    spans = (VersionSpan(NEWER, 0, 1), VersionSpan(VERSION, 1, 3))
    assert replace(WHOLE, spans=spans).oldest_version == VERSION


@pytest.mark.parametrize(
    ("finish", "reward", "counted"),
    [(Finish.STOP, 1.0, 1.0), (Finish.STOP, None, None), (Finish.LENGTH, None, 0.0), (Finish.LENGTH, 1.0, 0.0)],
)
def test_a_draw_that_the_limit_cut_counts_as_0(finish: Finish, reward: float | None, counted: float | None) -> None:
    assert replace(WHOLE, finish=finish, reward=reward).counted_reward == counted


@given(records(unjudged=True))
@quick
def test_sums_of_logprobs_are_kept_for_every_prefix_of_a_draw(draws: tuple[Draw, ...]) -> None:
    for one in draws:
        sums = [sum(one.logprobs[:k]) for k in range(len(one.logprobs) + 1)]
        assert list(one.cumulative_logprobs) == pytest.approx(sums)


def test_the_kept_sums_stay_off_the_wire_and_come_back() -> None:
    wire = TypeAdapter(Draw)
    assert "cumulative_logprobs" not in wire.dump_python(WHOLE)
    back = wire.validate_json(wire.dump_json(WHOLE))
    assert back == WHOLE
    assert back.cumulative_logprobs == WHOLE.cumulative_logprobs


def test_a_trajectory_is_what_its_ancestors_and_it_sampled() -> None:
    draws = [draw([A, B, A, EOS])]
    draws.append(draw([B, B, EOS], before=draws, parent=0, cut=2))
    draws.append(draw([A, EOS], before=draws, parent=1, cut=3))
    assert trajectory(draws, 2) == (A, B, B, A, EOS)


def test_a_trajectory_may_have_a_hundred_thousand_forks() -> None:
    spans = (VersionSpan(VERSION, 0, 1),)
    draws = [Draw(i - 1 if i else None, i, (i,), (-1.0,), (i + 1,), spans, Finish.STOP, 1.0) for i in range(100_000)]
    assert trajectory(draws, 99_999) == tuple(range(100_000))


@given(st.builds(WeightVersion, st.integers(0, 10**6), st.integers(0, 10**6)))
@quick
def test_versions_read_as_they_are_written(version: WeightVersion) -> None:
    assert WeightVersion.parse(str(version)) == version


@pytest.mark.parametrize("text", ["", "1", "1.", ".2", "1.2.3", "-1.0", "a.b"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"<generation>\.<number>"):
        WeightVersion.parse(text)


def test_a_newer_generation_is_newer_than_any_number() -> None:
    assert WeightVersion(1, 0) > WeightVersion(0, 99)


@pytest.mark.parametrize(
    ("generation", "number", "origin"), [(-1, 0, ""), (0, 2**53, ""), (10**40, 0, ""), (1, 0, "x")]
)
def test_a_version_that_could_not_be_sent_on_is_none(generation: int, number: int, origin: str) -> None:
    with pytest.raises(ValueError, match=r"has numbers|hexadecimal"):
        WeightVersion(generation, number, origin)


def test_equal_numbers_of_two_origins_are_two_versions() -> None:
    assert WeightVersion(1, 1, "a1") != WeightVersion(1, 1, "b2") != WeightVersion(1, 1)
    assert str(WeightVersion(1, 1, "a1")) == "1.1-a1"
