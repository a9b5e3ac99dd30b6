"""The real SGLang, the embedded engine and transformers agree: tokens, log-probabilities, behind caches and updates."""

import asyncio

import pytest

from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Request, Sampling
from services.rollout.vocabulary import Vocabulary
from shared.tree.draw import Finish, WeightVersion
from tests.sglang import reference
from tests.sglang.conftest import Bundles, Served
from tests.waiting import wait_until_async

TOLERANCE = 1e-4
MAX_TOKENS = 48


async def test_greedy_answers_are_equal_in_all_three(served: Served, bundles: Bundles, vocabulary: Vocabulary) -> None:
    prompts = reference.prompts(vocabulary, 12)
    embedded = EmbeddedEngine(EmbeddedSettings())
    await embedded.load(bundles.first, WeightVersion(1, 0))
    wanted = [reference.greedy(bundles.first, prompt, MAX_TOKENS) for prompt in prompts]
    of_sglang = await asyncio.gather(*(served.sample(prompt, MAX_TOKENS, temperature=0.0) for prompt in prompts))
    requests = [Request(prompt, MAX_TOKENS, Sampling(temperature=0.0), frozenset({1}), 0) for prompt in prompts]
    of_embedded = await asyncio.gather(*map(embedded.complete, requests))
    await embedded.close()
    assert [one.token_ids for one in of_sglang] == wanted
    assert [one.token_ids for one in of_embedded] == wanted
    for ours, theirs in zip(of_embedded, of_sglang, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=TOLERANCE)
        assert theirs.finish == ours.finish


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
async def test_log_probabilities_are_of_the_scaled_full_softmax(
    served: Served, bundles: Bundles, vocabulary: Vocabulary, temperature: float
) -> None:
    prompts = reference.prompts(vocabulary, 6, seed=1)
    sampled = await asyncio.gather(*(served.sample(prompt, MAX_TOKENS, temperature=temperature) for prompt in prompts))
    for prompt, one in zip(prompts, sampled, strict=True):
        wanted = reference.logprobs(bundles.first, prompt, one.token_ids, temperature)
        assert one.logprobs == pytest.approx(wanted, abs=TOLERANCE)


async def test_log_probabilities_are_equal_behind_a_cached_prefix(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    [prompt] = reference.prompts(vocabulary, 1, seed=2)
    first = await served.sample(prompt, MAX_TOKENS)
    prefix = prompt + first.token_ids[: len(first.token_ids) // 2]
    for _ in range(3):
        branch = await served.sample(prefix, MAX_TOKENS)
        assert branch.cached_tokens == len(prefix) - 1
        wanted = reference.logprobs(bundles.first, prefix, branch.token_ids)
        assert branch.logprobs == pytest.approx(wanted, abs=TOLERANCE)


async def test_where_the_support_is_cut_both_log_probabilities_are_right(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    for prompt in reference.prompts(vocabulary, 4, seed=3):
        one = await served.sample(prompt, MAX_TOKENS, temperature=1.3, top_k=4, top_p=0.9)
        assert one.logprobs == pytest.approx(
            reference.logprobs(bundles.first, prompt, one.token_ids, 1.3), abs=TOLERANCE
        )
        assert one.sampling_logprobs == pytest.approx(
            reference.sampling_logprobs(bundles.first, prompt, one.token_ids, 1.3, top_k=4, top_p=0.9), abs=TOLERANCE
        )


async def test_after_an_update_all_is_of_the_new_weights(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    prompts = reference.prompts(vocabulary, 6, seed=4)
    old = [await served.sample(prompt, MAX_TOKENS, temperature=0.0) for prompt in prompts]
    await served.engine.load(bundles.second, served.next_version())
    new = [await served.sample(prompt, MAX_TOKENS, temperature=0.0) for prompt in prompts]
    assert [one.token_ids for one in new] == [reference.greedy(bundles.second, each, MAX_TOKENS) for each in prompts]
    assert [one.logprobs for one in new] != [one.logprobs for one in old]
    for prompt, one in zip(prompts, new, strict=True):
        assert one.cached_tokens < len(prompt) - 1  # as many as other prompts begin with, not all
        wanted = reference.logprobs(bundles.second, prompt, one.token_ids)
        assert one.logprobs == pytest.approx(wanted, abs=TOLERANCE)


async def test_tokens_on_both_sides_of_an_update_are_of_the_weights_that_they_name(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    """Not one token over a stale cache: each is as likely as its own weights say, over the whole sequence."""
    before = served.engine.version
    prompts = reference.prompts(vocabulary, 4, seed=5)
    endless = [Request(prompt, 200, Sampling(), frozenset(), 0) for prompt in prompts]
    sampling = [asyncio.create_task(served.engine.complete(request)) for request in endless]
    await wait_until_async(lambda: served.has_series("sglang:num_running_reqs", len(prompts)))
    await asyncio.sleep(0.1)  # time for tokens of the first weights, which the server counts only at the end
    after = served.next_version()
    await served.engine.load(bundles.second, after)
    for prompt, one in zip(prompts, await asyncio.gather(*sampling), strict=True):
        assert one.finish is Finish.LENGTH
        old, new = one.spans
        assert (old.version, new.version, new.end) == (before, after, 200)
        of_old = reference.logprobs(bundles.first, prompt, one.token_ids)
        of_new = reference.logprobs(bundles.second, prompt, one.token_ids)
        assert one.logprobs == pytest.approx(of_old[: old.end] + of_new[new.start :], abs=TOLERANCE)
