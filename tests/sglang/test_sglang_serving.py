"""The real SGLang as a replica uses it: prefixes shared, bounds kept, requests dropped, series shown."""

import asyncio
import math
from typing import Any
from zlib import crc32

import pytest
from prometheus_client import generate_latest

from services.rollout.engines.engine import Request, Sampling
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.checksums import read_checksums
from services.rollout.engines.sglang.client import SglangClient
from services.rollout.grower import TreeGrower
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.protocol.tree import TreeUsage
from shared.tree.samplers import EntropySampler, IBSampler
from tests.sglang import reference
from tests.sglang.conftest import MODULE, Bundles, Served
from tests.waiting import wait_until_async


class CoinRewards:
    """One answer in two is right."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        return Reward(float(crc32(response.encode()) % 2))


def task_of(prompt_ids: tuple[int, ...], sampler: Any, likelihood: dict[str, Any] | None = None, seed: int = 0) -> Task:
    growth = Growth.model_validate({"sampler": sampler, "max_tokens": 48, "likelihood": likelihood})
    return Task(
        run="r",
        id=str(seed),
        problem_id=str(seed),
        prompt_ids=prompt_ids,
        kind="coin",
        answer_key={"gold": "1"},
        growth=growth,
        seed=seed,
    )


async def grow(served: Served, vocabulary: Vocabulary, sampler: Any, num_trees: int, seed: int) -> list[TreeUsage]:
    grower = TreeGrower(served.engine, CoinRewards(), "test")
    prompts = reference.prompts(vocabulary, num_trees, seed)
    tasks = [task_of(prompt, sampler, seed=index) for index, prompt in enumerate(prompts)]
    return [tree.usage for tree in await asyncio.gather(*(grower.grow(task, vocabulary) for task in tasks))]


async def test_a_tree_computes_no_prefix_twice(served: Served, vocabulary: Vocabulary) -> None:
    computed = await served.series("sglang:realtime_tokens_total", mode="prefill_compute")
    for sampler in (IBSampler(), EntropySampler()):
        usages = await grow(served, vocabulary, sampler, num_trees=6, seed=6)
        reusable, cached = (sum(getattr(one, name) for one in usages) for name in ("reusable_tokens", "cached_tokens"))
        assert reusable > 0
        assert cached >= 0.95 * reusable
    # and so says the server
    fresh = await served.series("sglang:realtime_tokens_total", mode="prefill_compute") - computed
    prompts = sum(len(prompt) for prompt in reference.prompts(vocabulary, 6, seed=6))
    num_requests = served.registry.get_sample_value("ibtpo_rollout_engine_requests_total", {"result": "done"})
    assert num_requests is not None
    assert fresh <= 1.05 * prompts + num_requests


async def test_step_ends_are_scored_behind_the_cache(served: Served, bundles: Bundles, vocabulary: Vocabulary) -> None:
    computed = await served.series("sglang:realtime_tokens_total", mode="prefill_compute")
    prompts = reference.prompts(vocabulary, 4, seed=11)
    grower = TreeGrower(served.engine, CoinRewards(), "test")
    trees = await asyncio.gather(*(grower.grow(task_of(prompt, IBSampler(), {}), vocabulary) for prompt in prompts))
    opener, gold = vocabulary.encode_continuation("\\boxed{"), vocabulary.encode_continuation("1}")
    for tree in trees:
        assert tree.usage.unscored_draws == 0
        draw = tree.draws[0]
        assert draw.step_likelihoods is not None
        for end, found in zip(draw.step_ends[:-1], draw.step_likelihoods[:-1], strict=True):
            before = tree.task.prompt_ids + draw.token_ids[:end] + opener
            wanted = math.exp(sum(reference.logprobs(bundles.first, before, gold)))
            assert found == pytest.approx(wanted, abs=1e-4)
    num_scores = sum(len(draw.step_ends) for tree in trees for draw in tree.draws)
    num_requests = served.registry.get_sample_value("ibtpo_rollout_engine_requests_total", {"result": "done"})
    assert num_requests is not None
    fresh = await served.series("sglang:realtime_tokens_total", mode="prefill_compute") - computed
    # of a score opener and gold answer, and the token before them; of a draw one token
    assert fresh <= 1.05 * sum(map(len, prompts)) + num_requests + num_scores * (len(opener) + len(gold))


async def test_the_longest_request_that_is_let_through_is_served_whole(served: Served) -> None:
    longest = served.engine.limits.context_length
    for num_tokens in (1, longest // 2, longest - 1):
        request = Request((4,) * num_tokens, longest - num_tokens, Sampling(), frozenset(), 0)
        assert len((await served.engine.complete(request)).token_ids) == longest - num_tokens


async def test_an_answer_ends_with_its_stop_token(served: Served, vocabulary: Vocabulary) -> None:
    for prompt in reference.prompts(vocabulary, 4, seed=7):
        one = await served.sample(prompt, 100)
        assert one.token_ids[-1] == reference.EOS
        assert reference.EOS not in one.token_ids[:-1]


async def test_a_cancelled_request_stops_running_at_the_server(served: Served) -> None:
    endless = Request((4, 5, 6), 200, Sampling(), frozenset(), 0)
    aborted = await served.series("sglang:num_aborted_requests_total")
    completions = [asyncio.create_task(served.engine.complete(endless)) for _ in range(3)]
    await wait_until_async(lambda: served.has_series("sglang:num_running_reqs", 3))
    for task in completions:
        task.cancel()
    await asyncio.gather(*completions, return_exceptions=True)
    await wait_until_async(lambda: served.has_series("sglang:num_aborted_requests_total", aborted + 3))


async def test_its_checksums_say_which_weights_it_holds(served: Served, bundles: Bundles) -> None:
    """Equal for equal bundles; on a CPU, most are those of the bundle's own tensors."""
    client, seen = SglangClient(served.url), []
    for directory in (bundles.second, bundles.first, bundles.second):
        await served.engine.load(directory, served.next_version())
        seen.append(read_checksums(await client.checksums(60.0)))
    client.close()
    assert seen[0] == seen[2] != seen[1]
    assert served.registry.get_sample_value("ibtpo_rollout_engine_starts_total", {"cause": "tainted"}) == 0
    bundle = Bundle.read(bundles.second, served.next_version())
    common = bundle.shapes.keys() & seen[0][0].keys()
    if MODULE == "sglang_cpu":
        digests = bundle.sha256_of(common, as_float32=False)
        same = {name for name, digest in digests.items() if digest[:16] == seen[0][0][name]}
        assert common - same <= {"model.embed_tokens.weight"}  # where the vocabulary is padded
        assert len(same) > len(seen[0][0]) / 2


async def test_the_servers_series_are_the_replicas(served: Served) -> None:
    await served.sample((4, 5, 6))
    assert await served.series("sglang:generation_tokens_total") > 0
    text = generate_latest(served.registry).decode()
    assert "sglang:num_running_reqs{" in text
    assert "model_name" not in text
