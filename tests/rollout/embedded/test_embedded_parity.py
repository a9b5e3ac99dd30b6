"""What the embedded engine generates is what the model says."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
import torch

from services.rollout.engines.embedded import EmbeddedEngine
from services.rollout.engines.engine import Completion, Request, Sampling
from shared.tree.draw import Finish, VersionSpan, WeightVersion

EngineFactory = Callable[..., Awaitable[EmbeddedEngine]]
ModelFactory = Callable[..., torch.nn.Module]
FAMILIES = ("qwen3", "llama", "gpt2")
FIRST = WeightVersion(1, 0)
VOCAB_SIZE = 23

GREEDY = Sampling(temperature=0.0)
EOS = frozenset({2})


def reference_logprobs(
    model: torch.nn.Module, prompt: tuple[int, ...], completion: Completion, temperature: float
) -> torch.Tensor:
    token_ids = torch.tensor([prompt + completion.token_ids])
    with torch.no_grad():
        logprobs = (model(token_ids).logits[0, :-1] / temperature).log_softmax(-1)
    return logprobs.gather(-1, token_ids[0, 1:, None])[len(prompt) - 1 :, 0]


def prompts_of(seed: int, count: int, shared: int = 6) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    head = [rng.randrange(3, VOCAB_SIZE) for _ in range(shared)]
    return [tuple(head + [rng.randrange(3, VOCAB_SIZE) for _ in range(rng.randrange(1, 20))]) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
async def test_greedy_answers_are_those_of_transformers_generate(
    serve: EngineFactory, plain_model: ModelFactory, family: str
) -> None:
    engine, model = await serve(family, max_running_requests=4, trace=True), plain_model(family, 0)
    prompts = prompts_of(1, 7)
    completions = await asyncio.gather(*(engine.complete(Request(p, 30, GREEDY, EOS, seed=0)) for p in prompts))
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30)
        assert completion.token_ids == tuple(expected[0, len(prompt) :].tolist())
        assert completion.finish is (Finish.STOP if completion.token_ids[-1] == 2 else Finish.LENGTH)
        assert completion.spans == (VersionSpan(FIRST, 0, len(completion.token_ids)),)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_logprobs_are_those_of_a_plain_forward_pass_behind_a_cached_prefix_too(
    serve: EngineFactory, plain_model: ModelFactory, family: str, temperature: float
) -> None:
    engine, model = await serve(family, max_running_requests=5, trace=temperature == 1.0), plain_model(family, 0)
    sampling = Sampling(temperature)
    prompts = prompts_of(2, 8)
    roots = await asyncio.gather(
        *(engine.complete(Request(p, 25, sampling, EOS, seed=i)) for i, p in enumerate(prompts))
    )
    cuts = [(p + c.token_ids[: len(c.token_ids) // 2], i) for i, (p, c) in enumerate(zip(prompts, roots, strict=True))]
    branches = await asyncio.gather(*(engine.complete(Request(p, 25, sampling, EOS, seed=100 + i)) for p, i in cuts))
    for (prefix, _), branch in zip(cuts, branches, strict=True):
        assert branch.cached_tokens == len(prefix) - 1
    for prompt, completion in [
        *zip(prompts, roots, strict=True),
        *((p, b) for (p, _), b in zip(cuts, branches, strict=True)),
    ]:
        expected = reference_logprobs(model, prompt, completion, temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
        assert completion.sampling_logprobs is None


async def test_entropies_are_those_of_a_plain_forward_pass_for_whom_asks(
    serve: EngineFactory, plain_model: ModelFactory
) -> None:
    engine, model = await serve("qwen3", max_running_requests=3), plain_model("qwen3", 0)
    prompts = prompts_of(5, 6)
    requests = [
        Request(p, 25, Sampling(0.7, top_p=0.8), EOS, seed=i, with_entropies=i % 2 == 0) for i, p in enumerate(prompts)
    ]
    for request, completion in zip(requests, await asyncio.gather(*map(engine.complete, requests)), strict=True):
        if not request.with_entropies:
            assert completion.entropies is None
            continue
        with torch.no_grad():
            logits = model(torch.tensor([request.token_ids + completion.token_ids])).logits[0]
        wanted = torch.special.entr((logits[len(request.token_ids) - 1 : -1] / 0.7).softmax(-1)).sum(-1)
        torch.testing.assert_close(torch.tensor(completion.entropies), wanted, atol=1e-4, rtol=0)


async def test_a_prompt_longer_than_a_prefill_pass_is_computed_in_pieces(
    serve: EngineFactory, plain_model: ModelFactory
) -> None:
    engine, model = await serve(prefill_tokens=7), plain_model("qwen3", 0)
    prompts = [p * 3 for p in prompts_of(3, 5)]
    completions = await asyncio.gather(*(engine.complete(Request(p, 9, Sampling(), EOS, seed=4)) for p in prompts))
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = reference_logprobs(model, prompt, completion, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


async def test_identical_prompts_are_computed_once(serve: EngineFactory) -> None:
    engine = await serve(max_running_requests=16)
    prompt = prompts_of(5, 1)[0]
    completions = await asyncio.gather(
        *(engine.complete(Request(prompt, 5, Sampling(), EOS, seed=i)) for i in range(12))
    )
    assert engine.counters.prefilled_tokens == len(prompt) - 1
    assert sorted(c.cached_tokens for c in completions) == [0] + [len(prompt) - 1] * 11


async def test_a_short_prompt_rides_along_with_a_busy_batch_and_is_computed_once(
    serve: EngineFactory, plain_model: ModelFactory
) -> None:
    engine, model = await serve(max_running_requests=16), plain_model("qwen3", 0)
    busy = [asyncio.create_task(engine.complete(Request((3 + i,), 80, Sampling(), frozenset(), i))) for i in range(12)]
    while engine.counters.generated_tokens < 12 * 5:
        await asyncio.sleep(0)
    steps, before = engine.counters.decodes, engine.counters.prefilled_tokens
    prompt = (20, 21, 22, 20, 22)
    riders = await asyncio.gather(*(engine.complete(Request(prompt, 6, Sampling(), EOS, i)) for i in range(3)))
    assert engine.counters.prefilled_tokens - before == len(prompt) - 1
    assert sorted(rider.cached_tokens for rider in riders) == [0, 4, 4]
    assert engine.counters.decodes - steps >= len(prompt)
    for rider in riders:
        expected = reference_logprobs(model, prompt, rider, 1.0)
        torch.testing.assert_close(torch.tensor(rider.logprobs), expected, atol=1e-4, rtol=0)
    for nth, completion in enumerate(await asyncio.gather(*busy)):
        expected = reference_logprobs(model, (3 + nth,), completion, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


async def test_the_same_seeds_in_the_same_batch_give_the_same_answers(serve: EngineFactory) -> None:
    prompts = prompts_of(6, 9)
    answers = []
    for _ in range(2):
        engine = await serve(max_running_requests=4)
        answers.append(
            await asyncio.gather(*(engine.complete(Request(p, 30, Sampling(), EOS, i)) for i, p in enumerate(prompts)))
        )
    assert answers[0] == answers[1]


async def test_an_answer_does_not_depend_on_the_rows_around_it(serve: EngineFactory) -> None:
    prompts = prompts_of(7, 9)
    together, alone = await serve(max_running_requests=9), await serve(max_running_requests=1, cache_bytes=0)
    requests = [Request(p, 30, Sampling(0.8), EOS, i) for i, p in enumerate(prompts)]
    many = await asyncio.gather(*(together.complete(request) for request in requests))
    single = [await alone.complete(request) for request in requests]
    assert [c.token_ids for c in many] == [c.token_ids for c in single]
