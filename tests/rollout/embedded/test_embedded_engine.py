"""The engine while things happen to it: new weights, little memory, callers that leave, bad input, many at once."""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.embedded import engine as engine_module
from services.rollout.engines.embedded.model import PolicyModel
from services.rollout.engines.engine import Completion, Request, Sampling
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.tree.draw import Finish, VersionSpan, WeightVersion
from tests.waiting import wait_until_async

EngineFactory = Callable[..., Awaitable[EmbeddedEngine]]
ModelFactory = Callable[..., torch.nn.Module]
SnapshotFactory = Callable[..., Path]

FIRST, SECOND = WeightVersion(1, 0), WeightVersion(1, 1)
NO_STOP: frozenset[int] = frozenset()
TOKEN_BYTES = 4 * 2 * 2 * 2 * 12  # of the small Qwen3: float32, keys and values, layers, heads, head dimension


def request(prompt: tuple[int, ...], max_tokens: int = 20, seed: int = 0, stop: frozenset[int] = NO_STOP) -> Request:
    return Request(prompt, max_tokens, Sampling(), stop, seed)


def prompts_of(seed: int, count: int) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(3, 23) for _ in range(rng.randrange(2, 20))) for _ in range(count)]


def reference(model: torch.nn.Module, prompt: tuple[int, ...], completion: Completion) -> torch.Tensor:
    token_ids = torch.tensor([prompt + completion.token_ids])
    with torch.no_grad():
        logprobs = model(token_ids).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(-1, token_ids[0, 1:, None])[len(prompt) - 1 :, 0]


class TestNewWeights:
    async def test_requests_in_flight_go_on_under_the_new_weights_over_a_recomputed_prefix(
        self, serve: EngineFactory, snapshot: SnapshotFactory, plain_model: ModelFactory
    ) -> None:
        engine, completions = await serve(max_running_requests=8, trace=True), []
        clients = [asyncio.create_task(self.client(engine, p, completions)) for p in prompts_of(1, 8)]
        await wait_until_async(lambda: engine.counters.generated_tokens > 8 * 15)
        await engine.load(snapshot(seed=1), SECOND)
        await asyncio.gather(*clients)
        models = {FIRST: plain_model("qwen3", 0), SECOND: plain_model("qwen3", 1)}
        for prompt, completion in completions:
            for span in completion.spans:
                expected = reference(models[span.version], prompt, completion)[span.start : span.end]
                found = torch.tensor(completion.logprobs[span.start : span.end])
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert [FIRST, SECOND] in [[span.version for span in completion.spans] for _, completion in completions]

    @staticmethod
    async def client(
        engine: EmbeddedEngine, prompt: tuple[int, ...], completions: list[tuple[tuple[int, ...], Completion]]
    ) -> None:
        """Asks again and again until the weights have changed."""
        before = engine.version
        while engine.version == before:
            completions.append((prompt, await engine.complete(request(prompt, 60, len(completions)))))

    async def test_nothing_that_was_cached_before_is_used_after(
        self, serve: EngineFactory, snapshot: SnapshotFactory, plain_model: ModelFactory
    ) -> None:
        engine = await serve()
        prompt = prompts_of(2, 1)[0]
        assert (await engine.complete(request(prompt))).cached_tokens == 0
        assert (await engine.complete(request(prompt))).cached_tokens == len(prompt) - 1
        await engine.load(snapshot(seed=1), SECOND)
        completion = await engine.complete(request(prompt))
        assert completion.cached_tokens == 0
        assert completion.spans == (VersionSpan(SECOND, 0, 20),)
        expected = reference(plain_model("qwen3", 1), prompt, completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)

    async def test_another_configuration_of_the_same_shapes_is_served_as_it_says(
        self, serve: EngineFactory, snapshot: SnapshotFactory, plain_model: ModelFactory, tmp_path: Path
    ) -> None:
        engine = await serve()
        bundle = edited(snapshot(), tmp_path, rms_norm_eps=0.1)
        await engine.load(bundle, SECOND)
        model = plain_model("qwen3", 0)
        for module in model.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = 0.1
        prompt = prompts_of(3, 1)[0]
        completion = await engine.complete(request(prompt))
        expected = reference(model, prompt, completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)

    async def test_updates_one_after_another_all_arrive(self, serve: EngineFactory, snapshot: SnapshotFactory) -> None:
        engine, completions = await serve(max_running_requests=4, trace=True), []
        for number in range(1, 5):
            clients = [asyncio.create_task(self.client(engine, p, completions)) for p in prompts_of(4, 6)]
            await engine.load(snapshot(seed=number % 2), WeightVersion(1, number))
            await asyncio.gather(*clients)
        spans = [tuple(span.version.number for span in completion.spans) for _, completion in completions]
        assert set(spans) >= {(0, 1), (1, 2), (2, 3), (3, 4)}


def edited(source: Path, target: Path, **config: object) -> Path:
    """A copy of a bundle with another configuration."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


def with_weights(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a bundle with other weights."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    weights = load_file(source / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


NORM = "model.norm.weight"


class TestUnfitBundles:
    @pytest.fixture
    def bundle(self, snapshot: SnapshotFactory, tmp_path: Path, kind: str) -> Path:
        source = snapshot(seed=1)
        match kind:
            case "nan":
                return with_weights(source, tmp_path, lambda weights: weights[NORM].fill_(torch.nan))
            case "infinity":
                return with_weights(source, tmp_path, lambda weights: weights[NORM].fill_(torch.inf))
            case "missing weight":
                return with_weights(source, tmp_path, lambda weights: weights.__delitem__(NORM))
            case "unknown weight":
                return with_weights(source, tmp_path, lambda weights: weights.update(extra=torch.zeros(2)))
            case "weights of another shape":
                return with_weights(source, tmp_path, lambda weights: weights.update({NORM: torch.ones(5)}))
            case "another model":
                return snapshot("qwen3", 0, 64)
            case "another family":
                return snapshot("gpt2")
            case "shorter context":
                return edited(source, tmp_path, max_position_embeddings=32)
            case "no such directory":
                return tmp_path / "nowhere"
            case "truncated":
                shutil.copytree(source, tmp_path, dirs_exist_ok=True)
                data = (source / "model.safetensors").read_bytes()
                (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
            case "garbled config":
                shutil.copytree(source, tmp_path, dirs_exist_ok=True)
                (tmp_path / "config.json").write_text("{ not json")
            case "no weights":
                shutil.copytree(source, tmp_path, dirs_exist_ok=True)
                (tmp_path / "model.safetensors").unlink()
            case "empty weights":
                shutil.copytree(source, tmp_path, dirs_exist_ok=True)
                (tmp_path / "model.safetensors").write_bytes(b"")
        return tmp_path

    @pytest.fixture
    async def engine(self, serve: EngineFactory) -> EmbeddedEngine:
        return await serve()

    @pytest.mark.parametrize(
        "kind",
        [
            "nan",
            "infinity",
            "missing weight",
            "unknown weight",
            "weights of another shape",
            "another model",
            "another family",
            "shorter context",
            "no such directory",
            "truncated",
            "garbled config",
            "no weights",
            "empty weights",
        ],
    )
    async def test_an_unfit_bundle_is_refused_and_the_old_weights_serve_on(
        self, engine: EmbeddedEngine, bundle: Path
    ) -> None:
        prompt = prompts_of(5, 1)[0]
        before = await engine.complete(request(prompt))
        with pytest.raises(InvalidInput):
            await engine.load(bundle, SECOND)
        assert engine.version == FIRST
        after = await engine.complete(request(prompt))
        assert after.token_ids == before.token_ids
        assert after.cached_tokens == len(prompt) - 1


class TestLittleMemory:
    @pytest.mark.parametrize("num_slots", [0, 5, 40, 150])
    async def test_answers_are_the_same_with_any_cache(
        self, serve: EngineFactory, plain_model: ModelFactory, num_slots: int
    ) -> None:
        engine, model = (
            await serve(max_running_requests=6, cache_bytes=num_slots * TOKEN_BYTES),
            plain_model("qwen3", 0),
        )
        prompts = prompts_of(6, 12)
        roots = await asyncio.gather(*(engine.complete(request(p, 25, i)) for i, p in enumerate(prompts)))
        prefixes = [p + c.token_ids[:12] for p, c in zip(prompts, roots, strict=True)] * 2
        branches = await asyncio.gather(*(engine.complete(request(p, 25, 50 + i)) for i, p in enumerate(prefixes)))
        for prompt, completion in zip([*prompts, *prefixes], [*roots, *branches], strict=True):
            expected = reference(model, prompt, completion)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)
        assert (engine.counters.evicted_tokens > 0) == (num_slots > 0)
        counted = engine.counters.cached_tokens + engine.counters.prefilled_tokens
        assert counted == sum(len(prefix) - 1 for prefix in [*prompts, *prefixes])

    async def test_more_requests_than_rows_wait(self, serve: EngineFactory) -> None:
        engine = await serve(max_running_requests=2)
        completions = await asyncio.gather(*(engine.complete(request(p, 9)) for p in prompts_of(7, 15)))
        assert [len(c.token_ids) for c in completions] == [9] * 15
        await wait_until_async(lambda: engine.counters.rows_in_flight == 0)
        assert engine.counters.finished_requests == 15

    async def test_a_full_queue_refuses_more(self, serve: EngineFactory) -> None:
        engine = await serve(max_running_requests=1, max_waiting=2)
        running = [asyncio.create_task(engine.complete(request((5, 6), 40))) for _ in range(3)]
        await asyncio.sleep(0)
        results = await asyncio.gather(*running, return_exceptions=True)
        assert [type(result) for result in results] == [Completion, Completion, Overloaded]


class TestCallersThatLeave:
    async def test_a_cancelled_request_frees_its_row_and_its_pins(self, serve: EngineFactory) -> None:
        engine = await serve(max_running_requests=2, cache_bytes=60 * TOKEN_BYTES)
        running = [asyncio.create_task(engine.complete(request(p, 70))) for p in ((3, 4, 5), (6, 7, 8), (9, 10))]
        await wait_until_async(lambda: engine.counters.generated_tokens > 10)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await wait_until_async(lambda: engine.counters.rows_in_flight == 0)
        assert engine.counters.cancelled_requests == 3
        whole = await engine.complete(request(tuple(range(3, 23)) * 3, 5))  # needs the whole cache
        assert len(whole.token_ids) == 5
        again = await engine.complete(request(tuple(range(3, 23)) * 3, 5))
        assert again.cached_tokens == 59

    async def test_what_waits_can_be_cancelled_too(self, serve: EngineFactory) -> None:
        engine = await serve(max_running_requests=1, max_waiting=3)
        first = asyncio.create_task(engine.complete(request((3, 4), 60)))
        await wait_until_async(lambda: engine.counters.rows_in_flight == 1)
        for _ in range(5):
            waiting = [asyncio.create_task(engine.complete(request((5, 6)))) for _ in range(3)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        assert len((await first).token_ids) == 60

    async def test_close_ends_all_requests_and_refuses_new_ones(self, serve: EngineFactory) -> None:
        engine = await serve(max_running_requests=1)
        running = [asyncio.create_task(engine.complete(request((3, 4), 80))) for _ in range(3)]
        await wait_until_async(lambda: engine.counters.generated_tokens > 3)
        await engine.close()
        for result in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(result, Unavailable)
        with pytest.raises(Unavailable):
            await engine.complete(request((3, 4)))


class TestBadInput:
    async def test_before_the_first_load_there_is_no_answer(self) -> None:
        engine = EmbeddedEngine(EmbeddedSettings())
        assert engine.version is None
        with pytest.raises(Unavailable):
            _ = engine.limits
        with pytest.raises(Unavailable):
            await engine.complete(request((3, 4)))
        await engine.close()

    @pytest.mark.parametrize(
        ("bad", "named"),
        [
            (request(()), "no token ids"),
            (request((3, 23)), "23"),
            (request((3, -1)), "-1"),
            (request((3,) * 97, 1), "97"),
            (request((3,) * 50, 47), "97"),
            (request((3, 4), 0), "max_tokens"),
        ],
    )
    async def test_what_can_never_be_served_is_refused_with_its_values(
        self, serve: EngineFactory, bad: Request, named: str
    ) -> None:
        engine = await serve()
        with pytest.raises(InvalidInput, match=named):
            await engine.complete(bad)

    async def test_the_longest_request_is_served(self, serve: EngineFactory) -> None:
        engine = await serve()
        completion = await engine.complete(request((3,) * 46, 50))
        assert (len(completion.token_ids), completion.finish) == (50, Finish.LENGTH)

    async def test_a_prompt_of_one_token_is_served(self, serve: EngineFactory, plain_model: ModelFactory) -> None:
        engine = await serve()
        completion = await engine.complete(request((5,), 10))
        expected = reference(plain_model("qwen3", 0), (5,), completion)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)

    async def test_a_stop_token_ends_the_answer_and_is_its_last(self, serve: EngineFactory) -> None:
        engine = await serve()
        free = await engine.complete(request((3, 4, 5), 40, seed=3))
        stop = free.token_ids[7]
        cut = await engine.complete(request((3, 4, 5), 40, seed=3, stop=frozenset({stop})))
        assert cut.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
        assert cut.finish is Finish.STOP


class TestManyAtOnce:
    async def test_a_decode_that_fails_fails_its_rows_and_the_engine_goes_on(
        self, serve: EngineFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = await serve(max_running_requests=2)
        prefill = PolicyModel.prefill

        def broken(model: PolicyModel, *arguments: object) -> None:
            raise MemoryError("no memory left")

        monkeypatch.setattr(PolicyModel, "prefill", broken)
        results = await asyncio.gather(*(engine.complete(request(p)) for p in prompts_of(8, 3)), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3
        monkeypatch.setattr(PolicyModel, "prefill", prefill)
        assert len((await engine.complete(request((3, 4)))).token_ids) == 20
        assert engine.counters.failed_decodes >= 1

    @pytest.mark.parametrize("inline_seconds", [0.0, 60.0], ids=["in a thread", "on the loop"])
    async def test_storms_of_requests_cancellations_and_updates_leave_a_sound_engine(
        self,
        serve: EngineFactory,
        snapshot: SnapshotFactory,
        plain_model: ModelFactory,
        inline_seconds: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(engine_module, "INLINE_SECONDS", inline_seconds)
        engine = await serve(max_running_requests=7, cache_bytes=120 * TOKEN_BYTES, trace=True)
        rng = random.Random(9)
        models = {number: plain_model("qwen3", number % 2) for number in range(4)}
        finished: list[tuple[tuple[int, ...], Completion]] = []

        async def client(number: int) -> None:
            prompt = rng.choice(prompts_of(number % 5, 3))
            for index in range(3):
                job = asyncio.create_task(engine.complete(request(prompt, rng.randrange(1, 20), 10 * number + index)))
                if rng.random() < 0.25:
                    await asyncio.sleep(rng.random() * 0.02)
                    job.cancel()
                    await asyncio.wait([job])
                    continue
                completion = await job
                finished.append((prompt, completion))
                prompt += completion.token_ids[: rng.randrange(1, 12)]

        async def learner() -> None:
            for number in range(1, 4):
                await asyncio.sleep(0.05)
                await engine.load(snapshot(seed=number % 2), WeightVersion(1, number))

        async with asyncio.timeout(60):
            await asyncio.gather(learner(), *(client(number) for number in range(40)))
        await wait_until_async(lambda: engine.counters.rows_in_flight == 0)
        for prompt, completion in finished:
            for span in completion.spans:
                expected = reference(models[span.version.number], prompt, completion)[span.start : span.end]
                found = torch.tensor(completion.logprobs[span.start : span.end])
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        assert engine.counters.failed_decodes == 0
        assert len(finished) > 60

    async def test_the_loop_answers_while_a_long_decode_runs(
        self, serve: EngineFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = await serve()
        await engine.complete(request((3, 4)))
        decode = PolicyModel.decode

        def slow(model: PolicyModel, *arguments: Any) -> torch.Tensor:
            time.sleep(0.3)  # a larger model
            return decode(model, *arguments)

        monkeypatch.setattr(PolicyModel, "decode", slow)
        job = asyncio.create_task(engine.complete(request((5, 6), 8)))
        worst, last = 0.0, time.perf_counter()
        while not job.done():
            await asyncio.sleep(0.005)
            worst, last = max(worst, time.perf_counter() - last), time.perf_counter()
        # The first long decode is unexpected; later ones run in the thread.
        assert worst < 1.8
        assert engine.counters.decode_seconds > 1.0
