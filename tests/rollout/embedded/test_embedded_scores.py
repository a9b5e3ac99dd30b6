"""Given tokens scored by the engine: equal to a plain pass and to the learner, behind the cache, beside completions."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch

from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.embedded import batch as batch_module
from services.rollout.engines.embedded.model import PolicyModel
from services.rollout.engines.engine import Completion, Request, Sampling, ScoreRequest, TokenScores
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.tree.draw import WeightVersion
from tests.learner.synthetic import trie_of
from tests.waiting import wait_until_async

EngineFactory = Callable[..., Awaitable[EmbeddedEngine]]
ModelFactory = Callable[..., torch.nn.Module]
SnapshotFactory = Callable[..., Path]

FAMILIES = ("qwen3", "llama", "gpt2")
FIRST, SECOND = WeightVersion(1, 0), WeightVersion(1, 1)
TOLERANCE = 1e-4


def some_tokens(rng: random.Random, shortest: int, longest: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, 23) for _ in range(rng.randrange(shortest, longest)))


def score_requests(seed: int, count: int, temperature: float = 1.0) -> list[ScoreRequest]:
    """Continuations of different lengths; every third begins as an earlier one, and goes on otherwise."""
    rng = random.Random(seed)
    prompts = [some_tokens(rng, 1, 30) for _ in range(count)]
    prompts = [p if i % 3 else prompts[0] + p for i, p in enumerate(prompts)]
    return [ScoreRequest(prompt, some_tokens(rng, 1, 25), temperature) for prompt in prompts]


def expected_logprobs(model: torch.nn.Module, request: ScoreRequest) -> list[float]:
    """By a plain pass over everything."""
    whole = torch.tensor([request.token_ids + request.continuation])
    with torch.no_grad():
        logits = model(whole).logits[0, len(request.token_ids) - 1 : -1] / (request.temperature or 1.0)
    found: list[float] = logits.log_softmax(-1)[range(len(request.continuation)), list(request.continuation)].tolist()
    return found


def assert_scored(model: torch.nn.Module, requests: list[ScoreRequest], found: list[TokenScores]) -> None:
    for request, scores in zip(requests, found, strict=True):
        assert scores.logprobs == pytest.approx(expected_logprobs(model, request), abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
async def test_scores_are_those_of_a_plain_forward_pass(
    serve: EngineFactory, plain_model: ModelFactory, family: str, temperature: float
) -> None:
    engine = await serve(family, max_running_requests=5, trace=family == "qwen3" and temperature == 1.0)
    requests = score_requests(1, 12, temperature)
    for _ in range(2):  # the second time every prefix comes from the cache
        found = await asyncio.gather(*map(engine.score, requests))
        assert_scored(plain_model(family, 0), requests, found)
        assert {scores.version for scores in found} == {FIRST}
    assert [scores.cached_tokens for scores in found] == [len(request.token_ids) - 1 for request in requests]
    assert engine.counters.generated_tokens == 0
    assert engine.counters.scored_tokens == 2 * sum(len(request.continuation) for request in requests)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_scores_are_the_learners_own_log_probabilities(
    serve: EngineFactory, snapshot: SnapshotFactory, temperature: float
) -> None:
    engine = await serve(max_running_requests=8)
    requests = score_requests(2, 6, temperature)
    rows = PrefixRows.collate([trie_of(request.token_ids + request.continuation) for request in requests])
    with torch.no_grad():
        learned = LanguageModel.load(snapshot(), temperature).statistics(rows).logprobs_RS
    for row, request in enumerate(requests):
        begin = len(request.token_ids)
        wanted = learned[row, begin : begin + len(request.continuation)].tolist()
        assert (await engine.score(request)).logprobs == pytest.approx(wanted, abs=TOLERANCE)


async def test_a_completion_scored_anew_has_the_log_probabilities_that_it_was_sampled_with(
    serve: EngineFactory,
) -> None:
    engine = await serve()
    sampled = await engine.complete(Request((3, 4, 5), 30, Sampling(0.8), frozenset(), 0))
    whole = await engine.score(ScoreRequest((3, 4, 5), sampled.token_ids, 0.8))
    assert whole.logprobs == pytest.approx(sampled.logprobs, abs=TOLERANCE)
    # and what was sampled is a cached prefix of what may come after it
    half = await engine.score(ScoreRequest((3, 4, 5, *sampled.token_ids[:20]), (7, 8, 9), 0.8))
    assert half.cached_tokens == 22


@pytest.mark.parametrize("bound", ["prefill_tokens", "logits"])
async def test_a_long_continuation_is_scored_in_pieces(
    serve: EngineFactory, plain_model: ModelFactory, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "SCORED_LOGITS", 4 * 23 if bound == "logits" else 2**25)
    engine = await serve(prefill_tokens=7 if bound == "prefill_tokens" else 2048)
    requests = [*score_requests(3, 6), ScoreRequest((3,), (4, 5, 6) * 31)]
    assert_scored(plain_model("qwen3", 0), requests, await asyncio.gather(*map(engine.score, requests)))


async def test_a_prefix_of_many_continuations_is_computed_once_and_they_are_not_cached(serve: EngineFactory) -> None:
    engine, prompt = await serve(), tuple(range(3, 23))
    found = await asyncio.gather(*(engine.score(ScoreRequest(prompt, (token, 3, 4))) for token in range(3, 13)))
    assert engine.counters.prefilled_tokens == len(prompt) - 1
    assert sorted(scores.cached_tokens for scores in found) == [0] + [len(prompt) - 1] * 9
    assert (await engine.score(ScoreRequest((*prompt, 3, 3, 4), (5,)))).cached_tokens == len(prompt) - 1


@pytest.mark.parametrize("num_slots", [0, 30])
async def test_scores_are_the_same_with_little_memory_and_few_rows(
    serve: EngineFactory, plain_model: ModelFactory, num_slots: int
) -> None:
    engine = await serve(max_running_requests=3, cache_bytes=num_slots * 4 * 2 * 2 * 2 * 12)
    requests = score_requests(4, 20)
    assert_scored(plain_model("qwen3", 0), requests, await asyncio.gather(*map(engine.score, requests)))


async def test_scores_share_decodes_with_completions_and_do_not_change_them(
    serve: EngineFactory, plain_model: ModelFactory
) -> None:
    completing = [Request((3 + seed, 4), 40, Sampling(), frozenset(), seed) for seed in range(6)]
    alone = await serve(max_running_requests=8)
    wanted = await asyncio.gather(*map(alone.complete, completing))
    engine, requests = await serve(max_running_requests=8), score_requests(5, 20)
    running = [asyncio.create_task(engine.complete(request)) for request in completing]
    await wait_until_async(lambda: engine.counters.rows_in_flight == 6)
    scored = await asyncio.gather(*map(engine.score, requests))
    assert not any(task.done() for task in running)
    assert_scored(plain_model("qwen3", 0), requests, scored)
    found = await asyncio.gather(*running)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]


async def test_new_weights_in_flight_never_mix_within_a_score(
    serve: EngineFactory, snapshot: SnapshotFactory, plain_model: ModelFactory
) -> None:
    engine, found = await serve(max_running_requests=4), []
    requests = score_requests(6, 10)

    async def client(request: ScoreRequest) -> None:
        while engine.version == FIRST:
            found.append((request, await engine.score(request)))
        found.append((request, await engine.score(request)))

    busy = asyncio.create_task(engine.complete(Request((5, 6), 80, Sampling(), frozenset(), 0)))
    clients = [asyncio.create_task(client(request)) for request in requests]
    await wait_until_async(lambda: len(found) >= len(requests))
    await engine.load(snapshot(seed=1), SECOND)
    await asyncio.gather(*clients)
    assert isinstance(await busy, Completion)
    models = {FIRST: plain_model("qwen3", 0), SECOND: plain_model("qwen3", 1)}
    for request, scores in found:
        assert scores.logprobs == pytest.approx(expected_logprobs(models[scores.version], request), abs=TOLERANCE)
    assert {scores.version for _, scores in found} == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (ScoreRequest((), (3,)), "no token ids"),
        (ScoreRequest((3,), ()), "nothing to score"),
        (ScoreRequest((23,), (3,)), "token id 23 is outside"),
        (ScoreRequest((3,), (4, 23)), "token id 23 is outside"),
        (ScoreRequest((3,), (-1,)), "token id -1 is outside"),
        (ScoreRequest((3,) * 90, (4,) * 7), "make 97, over the context of 96"),
    ],
)
async def test_what_can_never_be_scored_is_refused_with_its_values(
    serve: EngineFactory, bad: ScoreRequest, named: str
) -> None:
    engine = await serve()
    with pytest.raises(InvalidInput, match=named):
        await engine.score(bad)
    assert len((await engine.score(ScoreRequest((3,) * 90, (4,) * 6))).logprobs) == 6


async def test_scores_wait_are_refused_cancelled_and_ended_as_completions_are(serve: EngineFactory) -> None:
    unloaded = EmbeddedEngine(EmbeddedSettings())
    with pytest.raises(Unavailable, match="no weights"):
        await unloaded.score(ScoreRequest((3,), (4,)))
    await unloaded.close()
    engine = await serve(max_running_requests=1, max_waiting=2)
    busy = asyncio.create_task(engine.complete(Request((3, 4), 80, Sampling(), frozenset(), 0)))
    await wait_until_async(lambda: engine.counters.rows_in_flight == 1)
    waiting = [asyncio.create_task(engine.score(ScoreRequest((5, 6), (7,)))) for _ in range(3)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in waiting] == [False, False, True]
    with pytest.raises(Overloaded):
        await waiting[2]
    waiting[0].cancel()
    assert (await waiting[1]).version == FIRST
    assert len((await busy).token_ids) == 80
    await engine.close()
    with pytest.raises(Unavailable, match="closed"):
        await engine.score(ScoreRequest((5, 6), (7,)))


async def test_a_scoring_pass_that_fails_fails_its_scores_and_the_engine_goes_on(
    serve: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await serve()

    def broken(model: PolicyModel, *arguments: object) -> None:
        raise MemoryError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(PolicyModel, "score", broken)
        results = await asyncio.gather(*map(engine.score, score_requests(7, 3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert len((await engine.score(ScoreRequest((3, 4), (5, 6)))).logprobs) == 2
