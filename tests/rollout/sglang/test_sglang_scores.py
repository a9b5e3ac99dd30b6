"""Scores through the SGLang engine: what is sent, answered, refused, retried, and survived."""

import asyncio

import pytest

from services.rollout.engines.engine import ScoreRequest
from services.rollout.engines.sglang import score_format
from shared.errors import InvalidInput, Unavailable
from shared.tree.draw import WeightVersion
from tests.rollout.sglang.conftest import BundleFactory, Rig, RigFactory, request
from tests.waiting import wait_until_async

PREFIX, GIVEN = (4, 5, 6, 7), (8, 9, 19)


async def calls(served: Rig) -> list[dict[str, object]]:
    return [call["call"] for call in await served.seen("/generate")]


async def test_at_temperature_1_one_request_scores_all_and_leaves_the_cache_what_lies_before(rig: RigFactory) -> None:
    served = await rig()
    first = await served.engine.score(ScoreRequest(PREFIX, GIVEN))
    assert (first.logprobs, first.version, first.cached_tokens) == ((-9.0, -10.0, -20.0), WeightVersion(1, 1), 0)
    assert (await served.engine.score(ScoreRequest(PREFIX, GIVEN, 0.0))).cached_tokens == len(PREFIX) - 1
    sent = (await calls(served))[0]
    assert sent.pop("rid")
    assert sent == {
        "input_ids": [*PREFIX, *GIVEN],
        "sampling_params": {"max_new_tokens": 0},
        "return_logprob": True,
        "logprob_start_len": len(PREFIX) - 1,
        "extra_key": "1.1",
    }


async def test_at_other_temperatures_each_token_is_asked_for_and_the_last_one_first(rig: RigFactory) -> None:
    served = await rig()
    scores = await served.engine.score(ScoreRequest(PREFIX, GIVEN, 0.5))
    assert (scores.logprobs, scores.version) == ((-18.0, -20.0, -40.0), WeightVersion(1, 1))
    last, *others = await calls(served)
    assert last["input_ids"] == [*PREFIX, *GIVEN[:2]]
    assert {str(one["input_ids"]) for one in others} == {str([*PREFIX]), str([*PREFIX, GIVEN[0]])}
    assert {one["token_ids_logprob"][0] for one in (last, *others)} == set(GIVEN)  # type: ignore[index]
    assert all(
        one["sampling_params"] == {"max_new_tokens": 1, "temperature": 0.5, "ignore_eos": True}
        and "logprob_start_len" not in one
        for one in (last, *others)
    )
    again = await served.engine.score(ScoreRequest(PREFIX, GIVEN, 0.5))
    assert again.cached_tokens == len(PREFIX)


async def test_what_the_server_rounds_to_0_is_refused_with_the_remedy(rig: RigFactory) -> None:
    served = await rig()
    with pytest.raises(InvalidInput, match=r"token 19, the 3\. to score, .* score at temperature 1"):
        await served.engine.score(ScoreRequest(PREFIX, GIVEN, 0.1))


async def test_scores_after_one_new_prefix_compute_it_once(rig: RigFactory) -> None:
    served = await rig("--prefill-seconds=0.02")
    prefix = (4, 5, 6) * 10
    found = await asyncio.gather(*(served.engine.score(ScoreRequest(prefix, (token,))) for token in range(3, 9)))
    assert sorted(scores.cached_tokens for scores in found) == [0] + [len(prefix) - 1] * 5


async def test_a_score_survives_new_weights_and_is_of_one_version(rig: RigFactory, bundle: BundleFactory) -> None:
    served = await rig("--prefill-seconds=0.03")
    second = bundle("second", value=2.0)
    scoring = [
        asyncio.create_task(served.engine.score(ScoreRequest((3 + number, 4), GIVEN, temperature)))
        for number, temperature in enumerate((1.0, 0.5) * 4)
    ]
    await wait_until_async(lambda: served.seen("/generate"))
    await served.engine.load(second, WeightVersion(1, 2))
    versions = {scores.version for scores in await asyncio.gather(*scoring)}
    assert versions <= {WeightVersion(1, 1), WeightVersion(1, 2)}
    assert (await served.engine.score(ScoreRequest(PREFIX, GIVEN))).version == WeightVersion(1, 2)


@pytest.mark.parametrize("fault", ["abort", "close", "exit"])
async def test_a_score_is_asked_again_where_the_server_lost_it(rig: RigFactory, fault: str) -> None:
    served = await rig()
    await served.fault("/generate", fault)
    assert len((await served.engine.score(ScoreRequest(PREFIX, GIVEN))).logprobs) == len(GIVEN)
    assert served.value("ibtpo_rollout_engine_requests_total", result="lost") == 1


async def test_an_answer_that_cannot_be_read_and_a_refusal_are_errors(rig: RigFactory) -> None:
    served = await rig()
    for temperature in (1.0, 0.5):
        await served.fault("/generate", "garbled")
        with pytest.raises(Unavailable, match="cannot be read"):
            await served.engine.score(ScoreRequest(PREFIX, GIVEN, temperature))
        await served.fault("/generate", "message-in-error")
        with pytest.raises(InvalidInput, match="refused: one"):
            await served.engine.score(ScoreRequest(PREFIX, GIVEN, temperature))


async def test_a_cancelled_score_is_dropped_at_the_server(rig: RigFactory) -> None:
    served = await rig("--prefill-seconds=5")
    scoring = asyncio.create_task(served.engine.score(ScoreRequest(PREFIX, GIVEN)))
    await wait_until_async(lambda: served.seen("/generate"))
    scoring.cancel()
    await wait_until_async(lambda: served.seen("/abort_request"))


UNFIT = {
    "no token ids": ScoreRequest((), GIVEN),
    "nothing to score": ScoreRequest(PREFIX, ()),
    "token id 20 is outside": ScoreRequest(PREFIX, (20,)),
    "at most 249 tokens, not 250": ScoreRequest((4,) * 249, (5,)),
    "over the context of 250": ScoreRequest((4,) * 250, (5,)),
    "greedily": ScoreRequest(PREFIX, GIVEN, 1e-9),
}


async def test_what_the_server_would_refuse_or_die_of_is_never_sent(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await rig()
    for named, bad in UNFIT.items():
        with pytest.raises(InvalidInput, match=named):
            await served.engine.score(bad)
    assert await calls(served) == []
    monkeypatch.setattr(score_format, "MOST_SINGLE_TOKENS", 2)
    with pytest.raises(InvalidInput, match="at most 2 of them, not 3: score them in parts"):
        await served.engine.score(ScoreRequest(PREFIX, GIVEN, 0.5))
    assert len((await served.engine.score(ScoreRequest((4,) * 248, (5,)))).logprobs) == 1
    assert len((await served.engine.complete(request((4, 5), 3))).token_ids) == 3
