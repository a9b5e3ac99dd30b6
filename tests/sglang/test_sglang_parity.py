"""The real SGLang, the embedded engine and transformers agree: tokens, log-probabilities, behind caches and updates."""

import asyncio

import pytest
import torch

from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Request, Sampling, ScoreRequest
from services.rollout.engines.sglang.wire_format import bound_entropy
from services.rollout.vocabulary import Vocabulary
from shared.errors import InvalidInput
from shared.tree.draw import Finish, WeightVersion
from tests.learner.synthetic import trie_of
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


async def test_entropies_are_bounded_from_below_and_exact_where_all_tokens_are_named(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    prompts = reference.prompts(vocabulary, 3, seed=5) * 2  # of two equal ones, the first comes as a stream
    requests = [Request(p, MAX_TOKENS, Sampling(0.7), frozenset({1}), 0, with_entropies=True) for p in prompts]
    for one, sampled in zip(requests, await asyncio.gather(*map(served.engine.complete, requests)), strict=True):
        rows = reference.distributions(bundles.first, one.token_ids, sampled.token_ids, 0.7)
        for row, bound in zip(rows, sampled.entropies or (), strict=True):
            likeliest = row.sort(descending=True).values[:20].tolist()
            assert bound == pytest.approx(bound_entropy(likeliest), abs=TOLERANCE)
            assert bound <= float(-(row.exp() * row).sum()) + TOLERANCE


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


@pytest.mark.parametrize("temperature", [1.0, 0.8, 1.5])
async def test_given_tokens_are_scored_alike_by_both_engines_and_the_learner(
    served: Served, bundles: Bundles, vocabulary: Vocabulary, temperature: float
) -> None:
    prompts = reference.prompts(vocabulary, 6, seed=8)
    sampled = await asyncio.gather(*(served.sample(prompt, MAX_TOKENS, temperature=1.5) for prompt in prompts))
    requests = [ScoreRequest(p, one.token_ids, temperature) for p, one in zip(prompts, sampled, strict=True)]
    embedded = EmbeddedEngine(EmbeddedSettings())
    await embedded.load(bundles.first, WeightVersion(1, 0))
    of_embedded = await asyncio.gather(*map(embedded.score, requests))
    await embedded.close()
    of_sglang = await asyncio.gather(*map(served.engine.score, requests))
    rows = PrefixRows.collate([trie_of(one.token_ids + one.continuation) for one in requests])
    with torch.no_grad():
        learned = LanguageModel.load(bundles.first, temperature).statistics(rows).logprobs_RS
    for row, (one, ours, theirs) in enumerate(zip(requests, of_embedded, of_sglang, strict=True)):
        begin = len(one.token_ids)
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=TOLERANCE)
        wanted = learned[row, begin : begin + len(one.continuation)].tolist()
        assert ours.logprobs == pytest.approx(wanted, abs=TOLERANCE)
        assert theirs.version == served.engine.version


async def test_a_score_takes_its_whole_prefix_from_the_cache(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    [prompt] = reference.prompts(vocabulary, 1, seed=9)
    answer = await served.sample(prompt, MAX_TOKENS)
    prefix, given = prompt + answer.token_ids[:-2], (19, 18, 5, 4)  # the vocabulary's last token among them
    for _ in range(2):
        scores = await served.engine.score(ScoreRequest(prefix, given))
        assert scores.cached_tokens == len(prefix) - 1
        assert scores.logprobs == pytest.approx(reference.logprobs(bundles.first, prefix, given), abs=TOLERANCE)
    longest = served.engine.limits.context_length - 1
    assert len((await served.engine.score(ScoreRequest((4,) * (longest - 1), (5,)))).logprobs) == 1
    with pytest.raises(InvalidInput, match="score at temperature 1"):
        await served.engine.score(ScoreRequest(prefix, given, 0.01))


async def test_scores_in_flight_are_of_the_weights_that_they_name(
    served: Served, bundles: Bundles, vocabulary: Vocabulary
) -> None:
    before, after = served.engine.version, served.next_version()
    requests = [
        ScoreRequest(prompt, (4, 5, 6, 7), temperature)
        for prompt in reference.prompts(vocabulary, 20, seed=10)
        for temperature in (1.0, 0.9)
    ]
    scoring = [asyncio.create_task(served.engine.score(request)) for request in requests]
    await asyncio.wait(scoring, return_when=asyncio.FIRST_COMPLETED)
    await served.engine.load(bundles.second, after)
    directory_of = {before: bundles.first, after: bundles.second}
    for request, scores in zip(requests, await asyncio.gather(*scoring), strict=True):
        directory = directory_of[scores.version]
        wanted = reference.logprobs(directory, request.token_ids, request.continuation, request.temperature)
        assert scores.logprobs == pytest.approx(wanted, abs=TOLERANCE)
