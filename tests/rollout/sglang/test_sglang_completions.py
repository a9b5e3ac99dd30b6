"""Completions through the SGLang engine: what is sent, answered, refused, dropped and retried."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from services.rollout.engines.engine import Request, Sampling
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.tree.draw import Finish, VersionSpan, WeightVersion
from tests.rollout.sglang.conftest import RigFactory, request
from tests.waiting import wait_until_async


async def test_a_completion_is_what_the_server_sampled(rig: RigFactory) -> None:
    served = await rig("--tokens", "4")
    completion = await served.complete((4, 5, 6), 100)
    assert completion.finish is Finish.STOP
    assert completion.token_ids[-1] == 1
    assert completion.logprobs == (-0.5,) * len(completion.token_ids)
    assert completion.sampling_logprobs is None
    assert completion.spans == (VersionSpan(WeightVersion(1, 1), 0, len(completion.token_ids)),)
    assert completion.cached_tokens == 0
    assert (await served.complete((4, 5, 6, 7), 100)).cached_tokens == 3


async def test_an_answer_cut_by_the_limit_says_so(rig: RigFactory) -> None:
    served = await rig()
    completion = await served.complete(max_tokens=5)
    assert (completion.finish, len(completion.token_ids)) == (Finish.LENGTH, 5)


async def test_a_request_says_all_that_the_server_must_know(rig: RigFactory) -> None:
    served = await rig()
    await served.complete((4, 5), 3, temperature=0.7)
    await served.complete((4, 5), 3, temperature=0.7, top_p=0.9, top_k=5)
    await served.engine.complete(Request((4, 5), 3, Sampling(), frozenset(), seed=0))
    plain, cut, endless = [call["call"] for call in await served.seen("/generate")]
    assert plain["sampling_params"] == {"max_new_tokens": 3, "temperature": 0.7, "stop_token_ids": [1]}
    assert (plain["input_ids"], plain["return_logprob"], plain["extra_key"]) == ([4, 5], True, "1.1")
    assert (cut["sampling_params"]["top_p"], cut["sampling_params"]["top_k"]) == (0.9, 5)
    assert cut["return_sampling_mask"] is True
    assert endless["sampling_params"]["ignore_eos"] is True
    assert "stop_token_ids" not in endless["sampling_params"]
    assert len({call["rid"] for call in (plain, cut, endless)}) == 3


async def test_where_the_support_was_cut_the_renormalised_log_probabilities_are_kept(rig: RigFactory) -> None:
    served = await rig()
    assert (await served.complete(max_tokens=3, top_k=5)).sampling_logprobs == (-0.25,) * 3
    # without a finite top_k the server gives none
    assert (await served.complete(max_tokens=3, top_p=0.9)).sampling_logprobs is None


async def test_entropies_are_bounded_by_the_likeliest_tokens(rig: RigFactory) -> None:
    served = await rig()
    completion = await served.engine.complete(replace(request((4, 5), 3), with_entropies=True))
    [seen] = [call["call"] for call in await served.seen("/generate")]
    assert seen["top_logprobs_num"] == 20
    # halves of halves: the entropy of 20 of them is known, the rest is one more
    known = sum(k * math.log(2) / 2**k for k in range(1, 21)) + 20 * math.log(2) / 2**20
    assert completion.entropies == pytest.approx((known,) * 3)
    assert (await served.complete((4, 5), 3)).entropies is None


UNFIT = {
    "no tokens": request(()),
    "beyond the vocabulary": request((4, 20)),
    "negative": request((-1,)),
    "a stop id beyond the vocabulary": Request((4,), 3, Sampling(), frozenset({20}), 0),
    "no room": request((4,), 0),
    "too long": request((4,) * 200, 51),
    "greedy by a hair": request(temperature=1e-9),
    "top_k 1 with a temperature": request(top_k=1),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_what_the_server_would_die_of_or_cut_short_is_never_sent(rig: RigFactory, what: str) -> None:
    served = await rig()
    with pytest.raises(InvalidInput):
        await served.engine.complete(UNFIT[what])
    assert await served.seen("/generate") == []


async def test_the_longest_request_that_is_let_through_is_served_whole(rig: RigFactory) -> None:
    served = await rig()
    longest = served.engine.limits.context_length
    assert len((await served.complete((4,) * (longest - 1), 1)).token_ids) == 1
    assert len((await served.complete((4,), longest - 1)).token_ids) == longest - 1


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("message-in-error", InvalidInput, "refused: one"),
        ("text-in-error", InvalidInput, "refused: two"),
        ("object-error", InvalidInput, "refused: three"),
        ("unavailable", Unavailable, "not now"),
        ("full", Overloaded, "queue full"),
        ("garbled", Unavailable, "cannot be read"),
        ("no-json", Unavailable, "not json"),
    ],
)
async def test_each_shape_of_refusal_becomes_an_error_of_ours(
    rig: RigFactory, fault: str, error: type[Exception], message: str
) -> None:
    served = await rig()
    await served.fault("/generate", fault)
    with pytest.raises(error, match=message):
        await served.complete()
    assert (await served.complete()).token_ids
    assert served.value("ibtpo_rollout_engine_requests_total", result="failed") == 1


@pytest.mark.parametrize("fault", ["abort", "close"])
async def test_what_the_server_drops_is_tried_again_but_not_for_ever(rig: RigFactory, fault: str) -> None:
    served = await rig()
    await served.fault("/generate", fault, times=2)
    assert (await served.complete()).token_ids
    await served.fault("/generate", fault, times=3)
    with pytest.raises(Unavailable, match="3 tries"):
        await served.complete()
    assert served.value("ibtpo_rollout_engine_requests_total", result="lost") == 5
    assert served.engine.version == WeightVersion(1, 1)


async def test_a_completion_past_its_deadline_is_given_up_and_dropped_at_the_server(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.05", request_seconds=0.3)
    with pytest.raises(Unavailable, match=r"within 0\.3 s"):
        await served.complete(max_tokens=200)
    await _until_aborted(served, 1)
    assert served.value("ibtpo_rollout_engine_requests_total", result="given_up") == 1


async def test_cancelling_frees_the_server_at_once(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.05")
    completions = [asyncio.create_task(served.complete((4, 5, i), 200)) for i in range(2, 6)]
    await served.samples(4)
    for task in completions:
        task.cancel()
    await asyncio.gather(*completions, return_exceptions=True)
    await _until_aborted(served, 4)
    assert served.value("ibtpo_rollout_engine_calls") == 0
    assert served.value("ibtpo_rollout_engine_requests_in_flight") == 0


async def _until_aborted(served: Any, number: int) -> None:
    async def are_aborted() -> bool:
        return len(await served.seen("/abort_request")) >= number

    await wait_until_async(are_aborted)
    aborts = await served.seen("/abort_request")
    sent = [call["call"]["rid"] for call in await served.seen("/generate")]
    assert {call["call"]["rid"] for call in aborts} <= set(sent)


async def test_no_more_requests_are_at_the_server_than_were_allowed(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.002", max_requests=3)
    async with asyncio.TaskGroup() as group:
        for index in range(12):
            group.create_task(served.complete((4, 2 + index), 10))
    assert (await served.report())["most_running"] == 3


async def test_calls_beyond_the_bound_are_overloaded(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.01", max_requests=1, max_waiting=2)
    completions = [asyncio.create_task(served.complete((4, 2 + i), 20)) for i in range(3)]
    with pytest.raises(Overloaded):
        await completions[2]
    assert all(each.token_ids for each in await asyncio.gather(*completions[:2]))


async def test_simultaneous_requests_wait_until_their_prompt_is_computed_once(rig: RigFactory) -> None:
    served = await rig("--prefill-seconds", "0.05", "--token-seconds", "0.001")
    prompt = (4, 5, 6, 7, 8, 9)
    async with asyncio.TaskGroup() as group:
        completions = [group.create_task(served.complete(prompt, 20)) for _ in range(4)]
    assert sorted(task.result().cached_tokens for task in completions) == [0, 5, 5, 5]
    calls = [call["call"] for call in await served.seen("/generate")]
    assert [call.get("stream", False) for call in calls] == [True, False, False, False]


async def test_followers_do_not_wait_for_the_whole_answer(rig: RigFactory) -> None:
    served = await rig("--token-seconds", "0.01")
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(served.complete(max_tokens=50))
    assert asyncio.get_running_loop().time() - started < 2 * 50 * 0.01


@pytest.mark.parametrize("fault", ["unavailable", "garbled", "close"])
async def test_followers_go_on_when_the_first_request_fails(rig: RigFactory, fault: str) -> None:
    served = await rig()
    await served.fault("/generate", fault)
    results = await asyncio.gather(*(served.complete() for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, Unavailable) for result in results) == (0 if fault == "close" else 1)


async def test_followers_go_on_when_the_first_request_is_cancelled(rig: RigFactory) -> None:
    served = await rig("--prefill-seconds", "0.2")
    completions = [asyncio.create_task(served.complete()) for _ in range(3)]
    await wait_until_async(lambda: served.seen("/generate"))
    completions[0].cancel()
    assert all(each.token_ids for each in await asyncio.gather(*completions[1:]))
    early = [asyncio.create_task(served.complete((7, 7))) for _ in range(3)]
    early[0].cancel()  # before it ever ran
    assert all(each.token_ids for each in await asyncio.gather(*early[1:]))


async def test_before_the_first_load_and_after_the_end_nothing_is_served(rig: RigFactory) -> None:
    served = await rig(loaded=False)
    assert served.engine.version is None
    with pytest.raises(Unavailable, match="no weights"):
        await served.complete()
    served = await rig("--token-seconds", "0.05")
    completions = [asyncio.create_task(served.complete((4, i), 100)) for i in range(2, 5)]
    await served.samples(3)
    await served.engine.close()
    for task in completions:
        with pytest.raises(Unavailable, match="closed"):
            await task
    with pytest.raises(Unavailable, match="closed"):
        await served.complete()


async def test_the_servers_own_series_are_shown_without_its_models_path(rig: RigFactory) -> None:
    served = await rig()
    await served.complete()
    await served.engine.scrape()
    assert served.value("sglang:realtime_tokens_total", mode="prefill_compute") > 0
    assert served.registry.get_sample_value("python_info") is None
